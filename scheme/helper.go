package scheme

import (
	"context"
	"errors"
	"io"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// OpenBlobAt opens the blob d of r's repository as a stream that begins at offset: through BlobOpener where the place
// has it, else by reading a whole stream and dropping its beginning. Only a stream from 0 is verified; who joins
// parts checks the whole. The caller closes it.
func OpenBlobAt(ctx context.Context, api API, r ref.Ref, d types.Descriptor, offset int64) (io.ReadCloser, error) {
	if offset == 0 {
		return api.BlobGet(ctx, r, d)
	}
	if offset < 0 {
		return nil, &errs.Error{Op: "blob open", Ref: r.Place().String(), Digest: d.Digest, Err: errs.ErrRangeInvalid}
	}
	var opener BlobOpener
	if As(api, r, &opener) {
		ra, err := opener.BlobOpen(ctx, r, d)
		if err == nil {
			if offset > ra.Size() {
				ra.Close()
				return nil, &errs.Error{Op: "blob open", Ref: r.Place().String(), Digest: d.Digest, Err: errs.ErrRangeInvalid}
			}
			return &section{Reader: io.NewSectionReader(ra, offset, ra.Size()-offset), Closer: ra}, nil
		}
		if !errors.Is(err, errs.ErrUnsupported) {
			return nil, err
		}
	}
	rdr, err := api.BlobGet(ctx, r, d)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, rdr, offset); err != nil {
		rdr.Close()
		if err == io.EOF {
			err = &errs.Error{Op: "blob open", Ref: r.Place().String(), Digest: d.Digest, Err: errs.ErrRangeInvalid}
		}
		return nil, err
	}
	return rdr, nil
}

// section closes what it is a part of.
type section struct {
	io.Reader
	io.Closer
}

// BlobSource opens the blob d of r's repository as a verified stream that can be opened again at any offset: what a
// put needs to retry. The caller closes the reader; what OpenAt returned is closed by who called it.
func BlobSource(ctx context.Context, api API, r ref.Ref, d types.Descriptor) (blob.Source, blob.Reader, error) {
	rdr, err := api.BlobGet(ctx, r, d)
	if err != nil {
		return nil, nil, err
	}
	src := blob.NewSource(rdr, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return OpenBlobAt(ctx, api, r, d, offset)
	})
	return src, rdr, nil
}

// ListRepos returns the names of all repositories below r's root, in byte order.
func ListRepos(ctx context.Context, api API, r ref.Ref) ([]string, error) {
	var lister RepoLister
	if !As(api, r, &lister) {
		return nil, &errs.Error{Op: "repository list", Ref: r.Base().String(), Err: errs.ErrUnsupported}
	}
	var names []string
	err := lister.RepoList(ctx, r, "", func(repo string) error {
		names = append(names, repo)
		return nil
	})
	return names, err
}

// Close closes api if it has something to close.
func Close(api API) error {
	if c, ok := api.(Closer); ok {
		return c.Close()
	}
	return nil
}
