// Package accept holds tests only: layouts that ocisync writes are judged by other projects' own code, and layouts that
// their libraries write are read, extended and handed back. What their command-line tools make of the same is .ci/interop.
package accept
