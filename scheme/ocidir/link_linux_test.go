package ocidir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/ocisync/ocisync/internal/memdir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// mountsACopy expects a mount from src to tgt that is no hard link, and tgt's blob to be whole.
func mountsACopy(t *testing.T, o *OCIDir, src, tgt ref.Ref, d types.Descriptor, data []byte) {
	t.Helper()
	if err := o.BlobMount(t.Context(), src, tgt, d); err != nil {
		t.Fatal(err)
	}
	if os.SameFile(stat(t, blobFileOf(src, d.Digest)), stat(t, blobFileOf(tgt, d.Digest))) {
		t.Error("it is a hard link")
	}
	if got, err := os.ReadFile(blobFileOf(tgt, d.Digest)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("it has other bytes: %v", err)
	}
}

func TestMountFromAnotherDiskForReal(t *testing.T) {
	data := schemetest.Blob("mounted", 5000)
	o, src, tgt := open(t), place(t.TempDir()), place(disk(t, "8m"))
	d := putBlob(t, o, src, data)
	mountsACopy(t, o, src, tgt, d, data)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// A blob that many layouts have, as the empty config, comes to the limit of links: ext4's is 65,000.
func TestMountAtTheLinkLimitForReal(t *testing.T) {
	if os.Getenv(memdir.Env) == "" {
		t.Skipf("NOT TESTED without %s=1: 65,000 links on a disk", memdir.Env)
	}
	data := []byte("{}")
	o, dir := open(t), t.TempDir()
	src, tgt := place(dir+"/src"), place(dir+"/tgt")
	d := putBlob(t, o, src, data)
	var err error
	for i := 0; err == nil && i < 66_000; i++ {
		err = os.Link(blobFileOf(src, d.Digest), filepath.Join(dir, fmt.Sprint(i)))
	}
	if !errors.Is(err, syscall.EMLINK) {
		t.Skipf("NOT TESTED: this file system has no limit of links near 65,000 (%v)", err)
	}
	mountsACopy(t, o, src, tgt, d, data)
}

// With fs.protected_hardlinks, as is usual, nobody links a file of another user that he may not write.
func TestMountOfAnotherUsersFileForReal(t *testing.T) {
	on, err := os.ReadFile("/proc/sys/fs/protected_hardlinks")
	if os.Geteuid() != 0 || err != nil || strings.TrimSpace(string(on)) != "1" {
		t.Skip("NOT TESTED: it takes root, who becomes another user, and fs.protected_hardlinks")
	}
	data := schemetest.Blob("mounted", 5000)
	base := memoryDir(t)
	o, src, tgt := open(t), place(base+"/src"), place(base+"/tgt")
	d := putBlob(t, o, src, data)
	putBlob(t, o, tgt, []byte("first"))
	err = filepath.WalkDir(base, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return os.Chmod(name, 0o777)
	})
	if err != nil {
		t.Fatal(err)
	}
	asNobody(func() { mountsACopy(t, o, src, tgt, d, data) })
	if uid := stat(t, blobFileOf(tgt, d.Digest)).Sys().(*syscall.Stat_t).Uid; uid != nobody {
		t.Errorf("the copy is of user %d: it was not nobody who made it", uid)
	}
}

const nobody = 65534

// asNobody has another user's rights to files, without any privilege, while do runs. It is for this goroutine only.
func asNobody(do func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set := func(uid uintptr) { _, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uid, 0, 0) } // has no errors
	set(nobody)
	defer set(0)
	do()
}

// Where links cannot be had and the file system shares blocks, no byte is copied.
func TestMountSharesBlocksForReal(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.xfs")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("NOT TESTED: it takes root and mkfs.xfs")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	for _, cmd := range [][]string{{"truncate", "-s", "400M", image}, {mkfs, "-q", image}, {"mkdir", at}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("NOT TESTED: %q: %v: %s", cmd, err, out)
		}
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	s := &steps{}
	o, src, tgt := New(withHook(s.hook)), place(at+"/src"), place(at+"/tgt")
	defer o.Close()
	data := schemetest.Blob("mounted", 5000)
	d := putBlob(t, o, src, data)
	putBlob(t, o, tgt, []byte("first"))
	s.set(func(step, _ string) error {
		if step == stepLink {
			return syscall.EXDEV
		}
		return nil
	})
	mountsACopy(t, o, src, tgt, d, data)
	if s.has(stepWrite+" "+ingestDir) || !s.has(stepClone) {
		t.Errorf("bytes were copied: %q", s.seen)
	}
}
