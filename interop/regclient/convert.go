package regclient

import (
	rcdescriptor "github.com/regclient/regclient/types/descriptor"
	rcplatform "github.com/regclient/regclient/types/platform"
	rcref "github.com/regclient/regclient/types/ref"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// FromRef is regclient's r as a Ref of ours. It is not checked: Validate does that.
func FromRef(r rcref.Ref) ref.Ref {
	out := ref.Ref{Scheme: r.Scheme, Root: r.Path, Tag: r.Tag, Digest: digest.Digest(r.Digest)}
	if r.Scheme == ref.SchemeReg {
		out.Root, out.Repo = r.Registry, r.Repository
	}
	return out
}

// ToRef is r as regclient's Ref. Of schemes that regclient does not know it has no name there (CommonName), and
// regclient takes it for unset; a Scheme takes it all the same.
func ToRef(r ref.Ref) rcref.Ref {
	out := rcref.Ref{Scheme: r.Scheme, Reference: r.String(), Tag: r.Tag, Digest: string(r.Digest)}
	if r.Scheme == ref.SchemeReg {
		out.Registry, out.Repository = r.Root, r.Repo
	} else {
		out.Path = r.Path()
	}
	return out
}

// theirs is d as regclient's descriptor.
func theirs(d types.Descriptor) rcdescriptor.Descriptor {
	out := rcdescriptor.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs, Annotations: d.Annotations, Data: d.Data, ArtifactType: d.ArtifactType,
	}
	if p := d.Platform; p != nil {
		out.Platform = &rcplatform.Platform{
			Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant,
		}
	}
	return out
}

// ours is regclient's d as a descriptor of ours. What has no size there has a negative one or 0.
func ours(d rcdescriptor.Descriptor) types.Descriptor {
	out := types.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest, Size: max(d.Size, 0), URLs: d.URLs, Annotations: d.Annotations, Data: d.Data, ArtifactType: d.ArtifactType,
	}
	if p := d.Platform; p != nil {
		out.Platform = &types.Platform{
			Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant,
		}
	}
	return out
}
