package serve

import (
	"crypto/rand"
	"net/http"
)

// HeaderRequestID is the header by which a client, or what stands before the server, names a request, and in which every
// answer says how it is called in the log.
const HeaderRequestID = "X-Request-Id"

// maxRequestID is the length of a name that is taken over, in bytes.
const maxRequestID = 64

// requestID is how a request is called: as it says itself, if that can do no harm in a log, else a new name.
func requestID(r *http.Request) string {
	if id := r.Header.Get(HeaderRequestID); validRequestID(id) {
		return id
	}
	return rand.Text()
}

func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
