package ocidir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What becomes of a journal when the power fails: the two ends of what can be.
const (
	logKept = 1 // all changes of metadata are on the disk, and of file contents only what was synced: the zero-length files
	logLost = 2 // nothing is on the disk but what was synced
)

// shutdownFS is EXT4_IOC_SHUTDOWN, and XFS_IOC_GOINGDOWN. No write reaches the disk after it.
const shutdownFS = 0x8004587d

func init() {
	powerOff = func(mount string, flag int) error {
		fd, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlSetPointerInt(fd, shutdownFS, flag)
	}
	stopSelf = func() error { return syscall.Kill(os.Getpid(), syscall.SIGSTOP) }
}

// faultDisk is a file system on a file, whose power can fail.
type faultDisk struct {
	t       testing.TB
	img     string
	mnt     string
	mkfs    []string
	options string
	fsck    []string
	repair  []string // nil: what fsck finds is an error
}

// faultDisks are the kinds of file systems.
var faultDisks = map[string]faultDisk{
	"ext4": {
		mkfs:    []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-J", "size=8"},
		options: "loop,noauto_da_alloc,commit=600", // without the mercy that ext4 has on who does not sync
		fsck:    []string{"e2fsck", "-fn"},
	},
	"xfs": {
		mkfs:    []string{"mkfs.xfs", "-q", "-f"},
		options: "loop,nouuid",
		fsck:    []string{"xfs_repair", "-n"},
		repair:  []string{"xfs_repair"},
	},
}

// needFaults skips a test that needs root and is not for every run.
func needFaults(t testing.TB) {
	t.Helper()
	if os.Getenv("OCISYNC_FAULTS") == "" {
		t.Skip("SKIPPED: set OCISYNC_FAULTS=1, and be root, to lose power")
	}
	if os.Getuid() != 0 {
		t.Fatal("OCISYNC_FAULTS is set, and mounting needs root")
	}
}

// newFaultDisk makes and mounts one.
func newFaultDisk(t testing.TB, kind string) *faultDisk {
	t.Helper()
	d := faultDisks[kind]
	d.t = t
	if _, err := exec.LookPath(d.mkfs[0]); err != nil {
		t.Skipf("SKIPPED: there is no %s: install e2fsprogs and xfsprogs", d.mkfs[0])
	}
	base := t.TempDir()
	d.img, d.mnt = filepath.Join(base, kind+".img"), filepath.Join(base, "mnt")
	if err := os.Mkdir(d.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.img, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.img, 320<<20); err != nil { // sparse; xfs takes no less
		t.Fatal(err)
	}
	d.run(append(slices.Clone(d.mkfs), d.img)...)
	d.mount()
	t.Cleanup(func() {
		if mounted(d.mnt) {
			d.umount()
		}
	})
	return &d
}

func mounted(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

func (d *faultDisk) run(args ...string) {
	d.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (d *faultDisk) mount()  { d.t.Helper(); d.run("mount", "-o", d.options, d.img, d.mnt) }
func (d *faultDisk) umount() { d.t.Helper(); d.run("umount", d.mnt) }

// powerOn brings the file system back after it was shut down: it replays its journal, and has to be whole.
func (d *faultDisk) powerOn() {
	d.t.Helper()
	d.umount()
	d.mount()
	d.umount()
	d.check()
	d.mount()
}

// check looks whether the file system itself is whole. Where it is not, that is no fault of ours, and it is repaired as an
// administrator would, if it has a repair: xfs (Linux 6.18) was seen with a wrong count of links after its journal was replayed.
func (d *faultDisk) check() {
	d.t.Helper()
	args := append(slices.Clone(d.fsck), d.img)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	switch {
	case err == nil:
	case d.repair == nil:
		d.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	default:
		d.t.Logf("%s, which is repaired: %v\n%s", strings.Join(args, " "), err, out)
		d.run(append(slices.Clone(d.repair), d.img)...)
	}
}

// empty removes everything, durably: a later loss of power must not bring it back.
func (d *faultDisk) empty() {
	d.t.Helper()
	entries, err := os.ReadDir(d.mnt)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "lost+found" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.mnt, e.Name())); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.sync(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *faultDisk) sync() error {
	f, err := os.Open(d.mnt)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", d.mnt, err)
	}
	return nil
}
