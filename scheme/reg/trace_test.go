package reg

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ocisync/ocisync/types/errs"
)

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// Neither a log nor an error has what gives access.
func TestSecretsStayInside(t *testing.T) {
	data, d := content(10)
	for _, cred := range []Credential{{Username: "u", Password: "SECRET"}, {RefreshToken: "SECRET"}} {
		for name, status := range map[string]int{"success": 200, "failure": 400} {
			t.Run(name, func(t *testing.T) {
				s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
					switch {
					case r.URL.Path == "/token":
						answer(w, 200, `{"token":"SECRET"}`)
					case r.Header.Get("Authorization") == "":
						answer(w, 401, "", "WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.Host))
					case r.URL.Path == "/session":
						answer(w, status, "")
					default:
						answer(w, 202, "", "Location", "/session?sig=SECRET")
					}
				})
				var log buffer
				api := newTest(t, WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
					WithCredentials(func(context.Context, string) (Credential, error) { return cred, nil }))
				_, err := api.BlobPut(t.Context(), s.ref("a"), d, bytes.NewReader(data))
				if (err == nil) != (status == 200) {
					t.Fatal(err)
				}
				if err := api.Close(); err != nil {
					t.Error(err)
				}
				text := log.b.String() + fmt.Sprint(err) + errs.Hint(err)
				if strings.Contains(text, "SECRET") || strings.Contains(text, "U0VDUkVU") || strings.Contains(text, "dTpTRUNSRVQ") {
					t.Errorf("a secret in %s", text)
				}
				for _, want := range []string{"/v2/a/blobs/uploads/", "sig=redacted", "status=", "method=PUT"} {
					if !strings.Contains(text, want) {
						t.Errorf("the log lacks %q:\n%s", want, text)
					}
				}
			})
		}
	}
}
