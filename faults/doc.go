// Package faults is a disk whose power fails, for tests of what ocidir promises about power losses. It is a module of
// its own, so that nobody who uses ocisync has its dependencies; docs/faults.md says what is simulated and how.
//
// Disk serves one image file and one file of marks by FUSE. On the image lies a loop device with a file system, on which
// a workload runs. Every write and every flush that reaches the image is noted in order, and between them the marks,
// which are what the workload acknowledged. Log.Replay makes images of what a disk may hold that loses its power at some
// place in that order: everything before the last flush, and of what came after it any part.
package faults
