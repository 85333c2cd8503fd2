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

const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

func (p *epoll) add(j *Joint) error {
	for i, s := range []*side{&j.client, &j.platform} {
		// What comes back with an event: the place, the side, the turn.
		ev := unix.EpollEvent{Events: interest & (1<<32 - 1), Fd: int32(j.slot<<1 | uint32(i)), Pad: int32(j.turn)}
		err := p.control(s, unix.EPOLL_CTL_ADD, &ev)
		if err != nil {
			if i == 1 {
				p.remove(j, &j.client)
			}
			return fmt.Errorf("watch a socket: %w", err)
		}
	}
	return nil
}

// await has nothing to do: the set tells each change.
func (p *epoll) await(*Joint) {}

// remove is needed where a child of this process has the socket too, for a moment: it would
// stay in the set.
func (p *epoll) remove(_ *Joint, s *side) {
	_ = p.control(s, unix.EPOLL_CTL_DEL, nil) // it is closed next
}

func (p *epoll) control(s *side, op int, ev *unix.EpollEvent) error {
	var err error
	if used := s.fd.Control(func(fd uintptr) { err = unix.EpollCtl(p.fd, op, int(fd), ev) }); used != nil {
		return used
	}
	return os.NewSyscallError("epoll_ctl", err)
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
