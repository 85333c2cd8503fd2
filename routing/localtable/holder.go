package localtable

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// holder says, as well as it can be found out, which process has the lock on a file. The
// lines of /proc/locks are described in proc_locks(5): the fifth field is the process,
// the sixth the device and inode.
func holder(path string) string {
	const unknown = "another process"
	info, err := os.Stat(path)
	if err != nil {
		return unknown
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return unknown
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer f.Close()
	inode := ":" + strconv.FormatUint(stat.Ino, 10)
	for s := bufio.NewScanner(f); s.Scan(); {
		field := strings.Fields(s.Text())
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], inode) {
			continue
		}
		name, err := os.ReadFile("/proc/" + field[4] + "/comm")
		if err != nil {
			return "process " + field[4]
		}
		return fmt.Sprintf("process %s (%s)", field[4], strings.TrimSpace(string(name)))
	}
	return unknown
}
