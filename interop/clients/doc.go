// Package clients holds tests only: other projects' client libraries push to a registry of ours and pull from it, in
// plain HTTP, in HTTPS with a certificate of its own, and with user and password. Command-line clients do the same in
// .ci/clients; docs/interop.md says what each of them needs.
package clients
