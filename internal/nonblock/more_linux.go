//go:build race || 386 || s390x

package nonblock

import "syscall"

const more = syscall.MSG_MORE
