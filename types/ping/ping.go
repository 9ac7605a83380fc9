// Package ping has the answer to "is this place there, and may I use it?".
package ping

// Result says what a place answered.
type Result struct {
	// Exists reports that the place is there. A directory that does not exist yet, but could be made, does not.
	Exists bool
	// Writable reports that nothing known so far forbids writing. A registry says so only when asked to write.
	Writable bool
	// Authenticated reports that credentials were sent and accepted.
	Authenticated bool
	// APIVersion is a registry's Docker-Distribution-API-Version header, when it sent one.
	APIVersion string
}
