package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The id of a mounted file system stays while it is mounted, and is another one when it was
// mounted anew; where sysfs doesn't show it there is none.
func TestMountOf(t *testing.T) {
	dir := t.TempDir()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Dev)
	sys := filepath.Join(dir, "sys")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := mountOf(sys, info); got != "" {
		t.Errorf("%q without a device", got)
	}
	must(os.MkdirAll(filepath.Join(sys, "dev", "block"), 0o700))
	must(os.Symlink("../../devices/virtual/block/loop7", filepath.Join(sys, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)))))
	if got := mountOf(sys, info); got != "" {
		t.Errorf("%q of a file system that sysfs doesn't show", got)
	}
	shown := filepath.Join(sys, "fs", "ext4", "loop7")
	must(os.MkdirAll(shown, 0o700))
	must(os.MkdirAll(filepath.Join(sys, "fs", "ext4", "features"), 0o700))
	first := mountOf(sys, info)
	if first == "" || mountOf(sys, info) != first {
		t.Errorf("%q and %q of one mount", first, mountOf(sys, info))
	}
	must(os.Mkdir(shown+".new", 0o700)) // beside the old one, so that it gets a number of its own
	must(os.RemoveAll(shown))
	must(os.Rename(shown+".new", shown))
	if again := mountOf(sys, info); again == "" || again == first {
		t.Errorf("%q of a file system mounted anew, %q before", again, first)
	}
}
