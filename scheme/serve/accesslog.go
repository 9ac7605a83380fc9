package serve

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/ocisync/ocisync/internal/ocihttp"
)

// AccessLog is an inspector that logs every request as one record "request" with the attributes id, subject, remote,
// method, endpoint, repository, resource, digest, status, received and sent (bytes of the bodies), duration, agent,
// aborted and error; those that do not apply are left out, and path stands for a request that is none of the
// specification. The digest is that of what was pushed or pulled, where the resource does not say it: a tag moves, and an
// upload's name is gone with it.
// Credentials, other headers and the query are not in it, nor more than the beginning of an upload session's name.
// What a client chose is cleaned of control characters, and cut.
//
// The level is Error for a failure of the server (5xx), Warn for an answer that was cut and for 4xx, but for those with
// which clients find out what is there (401, 404), and Info for the rest.
func AccessLog(l *slog.Logger) Inspector { return accessLog{l} }

type accessLog struct{ log *slog.Logger }

// levelOf says how much a request deserves attention.
func levelOf(e *Event) slog.Level {
	switch {
	case e.Status >= http.StatusInternalServerError:
		return slog.LevelError
	case e.Aborted:
		return slog.LevelWarn
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusNotFound || e.Status < http.StatusBadRequest:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (a accessLog) Inspect(e *Event) {
	ctx, level := e.Request.Context(), levelOf(e)
	if !a.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, clean(value, maxLogged)))
		}
	}
	text("id", e.ID)
	text("subject", e.Subject)
	if e.Remote.IsValid() {
		attrs = append(attrs, slog.String("remote", e.Remote.String()))
	}
	text("method", e.Method)
	text("endpoint", string(e.Endpoint))
	if e.Endpoint == "" {
		text("path", e.Request.URL.Path)
	}
	text("repository", e.Repository)
	text("resource", shownResource(e.Context))
	if d := e.Header.Get(ocihttp.HeaderContentDigest); d != e.Resource {
		text("digest", d)
	}
	attrs = append(attrs, slog.Int("status", e.Status), slog.Int64("received", e.Received), slog.Int64("sent", e.Sent), slog.Duration("duration", e.Duration))
	text("agent", e.Request.UserAgent())
	if e.Aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", clean(e.Err.Error(), maxLoggedError)))
	}
	a.log.LogAttrs(ctx, level, "request", attrs...)
}

// maxLoggedError is how much of an error is logged, in bytes.
const maxLoggedError = 2048

// shownSession is how much of a session's name is logged: enough to find its requests again, not to go on with it.
const shownSession = 8

// shownResource is what of a request's resource may be logged.
func shownResource(c Context) string {
	if c.Endpoint != EndpointUpload || strings.Contains(c.Resource, ":") || len(c.Resource) <= shownSession {
		return c.Resource
	}
	return c.Resource[:shownSession] + "…"
}

// shownPath is the path of a request, as far as it may be logged.
func (x *exchange) shownPath() string {
	path := x.r.URL.Path
	if x.ctx.Endpoint == EndpointUpload && x.ctx.Resource != "" {
		path = strings.Replace(path, x.ctx.Resource, shownResource(x.ctx), 1)
	}
	return path
}
