package splice

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epoll is an engine's own set. It is itself a descriptor in the runtime's poller, so that
// no thread waits for it: one goroutine does. The sockets are in both sets, edge-triggered
// (epoll(7)), which costs no system call when a pair goes from work to rest.
type epoll struct {
	e     *Engine
	file  *os.File
	fd    int
	group sync.WaitGroup
}

func newWatcher(e *Engine) (watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or package os doesn't put it into its poller
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	p := &epoll{e: e, file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	raw, err := p.file.SyscallConn()
	if err == nil {
		err = p.file.SetDeadline(time.Time{}) // refused if it isn't in the runtime's poller
	}
	if err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	p.group.Go(func() { p.poll(raw) })
	return p, nil
}

const interest = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

func (p *epoll) add(j *Joint) error {
	if err := p.control(j, &j.client, unix.EPOLL_CTL_ADD, interest); err != nil {
		return err
	}
	if err := p.control(j, &j.platform, unix.EPOLL_CTL_ADD, interest); err != nil {
		_ = p.control(j, &j.client, unix.EPOLL_CTL_DEL, 0) // it is the caller's again
		return err
	}
	return nil
}

// await has the set tell when a socket takes more, from the first time on that one didn't: most
// never fill. All else it tells anyway.
//
// A socket leaves the set when it is closed. A child of this process that has it too, between
// fork and exec, keeps it there for a moment; what is told of it then is of a turn that is over.
func (p *epoll) await(j *Joint) {
	for _, s := range [...]*side{&j.client, &j.platform} {
		if s.open || s.asked || s.closed {
			continue
		}
		s.asked = true
		if err := p.control(j, s, unix.EPOLL_CTL_MOD, interest|unix.EPOLLOUT); err != nil {
			j.broken(s, err)
			j.post(due)
		}
	}
}

func (p *epoll) control(j *Joint, s *side, op int, events int64) error {
	// What comes back with an event: the place, the side, the turn.
	ev := unix.EpollEvent{Events: uint32(events & (1<<32 - 1)), Fd: int32(j.slot << 1), Pad: int32(j.turn)}
	if s == &j.platform {
		ev.Fd |= 1
	}
	var err error
	if used := s.fd.Control(func(fd uintptr) { err = control(p.fd, op, int(fd), &ev) }); used != nil {
		return fmt.Errorf("watch a socket: %w", used)
	}
	if err != nil {
		return fmt.Errorf("watch a socket: %w", os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// control doesn't wait either.
func control(set, op, fd int, ev *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(set), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// close ends poll and waits for it.
func (p *epoll) close() {
	p.file.Close()
	p.group.Wait()
}

// batch is how many events are taken at once.
const batch = 128

// poll hears of events and has them seen to, until the set is closed. The first pair of a batch
// it sees to itself, as far as that is brief: the answer to a command is on its way without
// another goroutine.
func (p *epoll) poll(raw syscall.RawConn) {
	events := make([]unix.EpollEvent, batch)
	pairs := make([]*Joint, 0, batch)
	n := 0
	look := func(fd uintptr) bool {
		n = take(int(fd), events)
		return n != 0
	}
	for {
		err := raw.Read(look)
		if err != nil || n < 0 {
			return // closed
		}
		pairs = p.e.told(events[:n], pairs[:0])
		if len(pairs) == 0 {
			continue
		}
		p.e.push(pairs[1:]...)
		j := pairs[0]
		p.e.active.Add(1)
		more := j.run(true)
		p.e.active.Add(-1)
		if more {
			p.e.push(j)
		}
		clear(pairs)
	}
}

// take takes the events that there are, without waiting; the scheduler need not be told.
func take(fd int, events []unix.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			return -1
		}
	}
}

// told gives the events to their pairs, and appends to pairs those that have to run.
func (e *Engine) told(events []unix.EpollEvent, pairs []*Joint) []*Joint {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range events {
		slot := uint32(ev.Fd) >> 1
		if int(slot) >= len(e.table) {
			continue
		}
		at := e.table[slot]
		if at.j == nil || int32(at.turn) != ev.Pad {
			continue // of a pair that was there before
		}
		var n news
		if ev.Events&unix.EPOLLIN != 0 {
			n |= clientIn
		}
		if ev.Events&unix.EPOLLOUT != 0 {
			n |= clientOut
		}
		if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			n |= clientHup
		}
		if ev.Fd&1 != 0 {
			n *= platformIn / clientIn
		}
		if at.j.note(n) {
			pairs = append(pairs, at.j)
		}
	}
	return pairs
}
