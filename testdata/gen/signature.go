package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	keySignature      = "dev.cosignproject.cosign/signature"
)

// signingKey is public knowledge: its secret is derived from the text below.
// It gives the demo a signature that verifies; it proves nothing about who
// signed.
func signingKey() (*ecdsa.PrivateKey, error) {
	secret := sha256.Sum256([]byte("the throwaway key of the ocisync demo image"))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), secret[:])
}

// publicKeyPEM returns what `cosign verify --key` reads.
func publicKeyPEM() ([]byte, error) {
	key, err := signingKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// addSignature stores a cosign signature of image the way cosign tags it:
// found by the name sha256-<hex>.sig, with no subject.
func addSignature(l *layout, image ocispec.Descriptor) error {
	payload, err := json.Marshal(object{
		"critical": object{
			"identity": object{"docker-reference": repo},
			"image":    object{"docker-manifest-digest": image.Digest},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	if err != nil {
		return fmt.Errorf("encode signature payload: %w", err)
	}
	key, err := signingKey()
	if err != nil {
		return err
	}
	hash := sha256.Sum256(payload)
	sig, err := key.Sign(nil, hash[:], crypto.SHA256) // no randomness: RFC 6979
	if err != nil {
		return fmt.Errorf("sign %s: %w", image.Digest, err)
	}
	blob := l.addBlob(typeSimpleSigning, payload)

	// cosign's config is an image config that lists the payload as its layer.
	config, err := l.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{blob.Digest}},
	})
	if err != nil {
		return err
	}
	blob.Annotations = map[string]string{keySignature: base64.StdEncoding.EncodeToString(sig)}
	desc, err := l.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{blob},
	})
	if err != nil {
		return err
	}
	l.list(desc, strings.Replace(image.Digest.String(), ":", "-", 1)+".sig")
	return nil
}
