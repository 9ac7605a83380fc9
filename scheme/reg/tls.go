package reg

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// tlsConfig is what h's settings mean for TLS.
func tlsConfig(h Host) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.TLS == TLSInsecure}
	if len(h.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(h.CA) {
			return nil, errors.New("the CA has no certificate in PEM form")
		}
		conf.RootCAs = pool
	}
	return conf, nil
}

// spokeHTTP reports whether a handshake failed because the other side does not speak TLS. Most servers answer it with an
// HTTP status line; some (Python's among them) with the bare text of an error, as HTTP/0.9 did.
func spokeHTTP(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) && record.Conn != nil
}

// untrusted reports whether a handshake failed because the certificate did.
func untrusted(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid)
}

// connectHint is what a user can do when a connection to host failed with err.
func connectHint(host string, err error) string {
	switch {
	case spokeHTTP(err):
		return "if this registry speaks HTTP only, use --plain-http " + host
	case untrusted(err):
		return "if this registry's certificate is to be trusted, give its CA to this program or to the system, or use --insecure " + host
	}
	return ""
}
