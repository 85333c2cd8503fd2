package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// BootID returns an id that is another one after each start of the machine and, on Linux with
// ext4, XFS and others that show themselves under /sys/fs by their device, after the file system
// of a directory was mounted anew: what was not fsynced may be gone then. It is empty where the
// system tells of no start. A directory that isn't there is one of the nearest above it.
func BootID(dir string) string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return ""
	}
	boot := strings.TrimSpace(string(b))
	if dir, err = filepath.Abs(dir); err != nil {
		return boot
	}
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	if err != nil {
		return boot
	}
	if m := mountOf("/sys", info); m != "" {
		boot += " " + m
	}
	return boot
}
