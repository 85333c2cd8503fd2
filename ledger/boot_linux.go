package ledger

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountOf returns an id of the mounted file system that a file is on, or an empty string where
// none is told. sys is where sysfs is.
//
// A file system on a device has a directory in sysfs as long as it is mounted anywhere, with a
// number that is not used again before the next start of the machine (kernfs). Mount ids won't do: they
// are others in each mount namespace, and a service may get one of its own at each start.
func mountOf(sys string, file fs.FileInfo) string {
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	dev := uint64(st.Dev)
	device, err := os.Readlink(filepath.Join(sys, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))))
	if err != nil {
		return "" // no device of its own: btrfs, NFS, memory
	}
	found, _ := filepath.Glob(filepath.Join(sys, "fs", "*", filepath.Base(device)))
	if len(found) != 1 {
		return ""
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return ""
	}
	shown, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d %d", unix.Major(dev), unix.Minor(dev), shown.Ino)
}
