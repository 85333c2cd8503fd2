package durable

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Stamp implements [Disk], by one system call: it comes before each message that is
// replayed. A network file system asks its server, as it does when a file is opened; of a
// file that another has replaced there the time of the change differs at least.
func (OS) Stamp(path string) (Stamp, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Stamp{}, &fs.PathError{Op: "statx", Path: path, Err: err}
		}
	}
	return Stamp{
		Device: unix.Mkdev(st.Dev_major, st.Dev_minor), File: st.Ino, Size: int64(st.Size),
		Modified: nanoseconds(st.Mtime), Changed: nanoseconds(st.Ctime),
	}, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
