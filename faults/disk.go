package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Disk is a block device in memory, served as a file. It is safe for concurrent use.
type Disk struct {
	dir    string
	server *fuse.Server

	mu     sync.Mutex
	data   []byte
	log    Log
	refuse func(request string, n int) bool
	counts map[string]int
}

// Requests that a Disk can refuse.
const (
	Write = "write"
	Flush = "flush"
)

// Serve mounts a disk that holds data at the empty directory dir. Close must be called. refuse, unless nil, is asked
// before the nth request of its kind (from 1 on); those for which it returns true fail with EIO and change nothing. It
// must not use the disk.
func Serve(dir string, data []byte, refuse func(request string, n int) bool) (*Disk, error) {
	d := &Disk{dir: dir, data: append([]byte(nil), data...), log: Log{base: append([]byte(nil), data...)}, refuse: refuse, counts: map[string]int{}}
	server, err := fs.Mount(dir, &folder{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, DisableXAttrs: true, FsName: "faults", Name: "faults", MaxWrite: 1 << 20,
	}})
	if err != nil {
		return nil, fmt.Errorf("mount by FUSE at %s: %w", dir, err)
	}
	d.server = server
	return d, nil
}

// Image is the file to make a loop device of.
func (d *Disk) Image() string { return filepath.Join(d.dir, "image") }

// Marks is the file that marks are written to; each write is one.
func (d *Disk) Marks() string { return filepath.Join(d.dir, "marks") }

// Log returns a copy of what reached the disk until now.
func (d *Disk) Log() *Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Log{base: d.log.base, records: append([]record(nil), d.log.records...)}
}

// Close unmounts the disk, which nobody may use any more.
func (d *Disk) Close() error {
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	return nil
}

// refused counts a request, and reports whether it fails. The caller holds mu.
func (d *Disk) refused(request string) bool {
	d.counts[request]++
	return d.refuse != nil && d.refuse(request, d.counts[request])
}

func (d *Disk) write(p []byte, off int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(p)) > int64(len(d.data)) {
		return syscall.ENOSPC
	}
	if d.refused(Write) {
		return syscall.EIO
	}
	copy(d.data[off:], p)
	d.log.records = append(d.log.records, record{kind: write, off: off, data: append([]byte(nil), p...)})
	return 0
}

func (d *Disk) read(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off >= int64(len(d.data)) {
		return 0
	}
	return copy(p, d.data[off:])
}

func (d *Disk) flush() syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused(Flush) {
		return syscall.EIO
	}
	d.log.records = append(d.log.records, record{kind: flush})
	return 0
}

func (d *Disk) mark(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log.records = append(d.log.records, record{kind: mark, data: append([]byte(nil), p...)})
}

// folder has the two files.
type folder struct {
	fs.Inode
	disk *Disk
}

func (f *folder) OnAdd(ctx context.Context) {
	for name, node := range map[string]fs.InodeEmbedder{"image": &image{disk: f.disk}, "marks": &marks{disk: f.disk}} {
		f.AddChild(name, f.NewPersistentInode(ctx, node, fs.StableAttr{Mode: fuse.S_IFREG}), false)
	}
}

// image is the block device.
type image struct {
	fs.Inode
	disk *Disk
}

var (
	_ fs.NodeOpener    = (*image)(nil)
	_ fs.NodeReader    = (*image)(nil)
	_ fs.NodeWriter    = (*image)(nil)
	_ fs.NodeFsyncer   = (*image)(nil)
	_ fs.NodeGetattrer = (*image)(nil)
	_ fs.NodeSetattrer = (*image)(nil)
	_ fs.NodeFlusher   = (*image)(nil)
)

// Open: without the page cache, so that the order of requests is that of the device.
func (i *image) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (i *image) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(p[:i.disk.read(p, off)]), 0
}

func (i *image) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(p)), i.disk.write(p, off)
}

func (i *image) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return i.disk.flush() }

// Flush comes with every close, and is no flush of a disk.
func (i *image) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

func (i *image) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = fuse.S_IFREG|0o600, uint64(len(i.disk.data)), 4096
	return 0
}

func (i *image) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return i.Getattr(ctx, f, out)
}

// marks is the file of acknowledgements.
type marks struct {
	fs.Inode
	disk *Disk
}

var (
	_ fs.NodeOpener    = (*marks)(nil)
	_ fs.NodeWriter    = (*marks)(nil)
	_ fs.NodeGetattrer = (*marks)(nil)
	_ fs.NodeSetattrer = (*marks)(nil)
)

func (m *marks) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (m *marks) Write(_ context.Context, _ fs.FileHandle, p []byte, _ int64) (uint32, syscall.Errno) {
	m.disk.mark(p)
	return uint32(len(p)), 0
}

func (m *marks) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFREG | 0o600
	return 0
}

func (m *marks) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return m.Getattr(ctx, f, out)
}

// errNoFUSE explains what is needed.
var errNoFUSE = errors.New("/dev/fuse and root are needed")

// Usable reports whether disks can be served here.
func Usable() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoFUSE, err)
	}
	return f.Close()
}
