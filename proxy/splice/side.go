package splice

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
)

// side is one peer's connection. It belongs to whoever runs the pair.
type side struct {
	tcp    *net.TCPConn
	tls    *tls.Conn // nil: plain
	wire   *wire     // beneath tls
	fd     socket
	pool   *pool
	ready  bool // there may be something to read, in the socket or in tls
	open   bool // the socket may take more
	asked  bool // the watcher was asked to tell when the socket takes more
	hup    bool // the peer's end was announced
	failed bool // the connection is broken, both ways
	closed bool
}

func newSide(nc net.Conn, p *pool) (side, error) {
	tcp, w, t, err := parts(nc)
	if err != nil {
		return side{}, err
	}
	fd, err := socketOf(tcp)
	if err != nil {
		return side{}, err
	}
	// What is in the socket is told as soon as it is watched; what is in tls, by nobody.
	s := side{tcp: tcp, tls: t, wire: w, fd: fd, pool: p, ready: t != nil, open: true}
	if w != nil {
		w.fd, w.pool, w.waits = s.fd, p, nil
	}
	return s, nil
}

// read reads what is there into b, which has room.
func (s *side) read(b *buffer) (int, error) {
	if s.tls == nil {
		n, err := s.fd.receive(&s.pool.calls, b.room())
		switch {
		case err == syscall.EAGAIN:
			s.ready = false
			return 0, nil
		case err != nil:
			return 0, err
		case n < len(b.room()) && !s.hup:
			s.ready = false // what comes now is told anew
		}
		b.to += n
		return n, nil
	}
	before := b.to
	for room := b.room(); len(room) > 0; room = b.room() {
		n, err := s.tls.Read(room)
		b.to += n
		if err == nil {
			continue
		}
		if errors.Is(err, error(wouldBlock{})) {
			s.ready = false
		} else if b.to == before {
			return 0, err
		}
		break // crypto/tls will say the same again
	}
	return b.to - before, nil
}

// write hands b's bytes to the kernel, as many as it takes; with TLS, what it doesn't take
// stays in the wire.
func (s *side) write(b *buffer) (int, error) {
	if s.tls == nil {
		n := 0
		for b.from < b.to {
			k, err := s.fd.send(&s.pool.calls, b.bytes())
			n += k
			b.from += k
			if err == syscall.EAGAIN {
				s.open = false
				break
			}
			if err != nil {
				return n, err
			}
		}
		return n, nil
	}
	if s.wire.out == nil {
		s.wire.out = s.pool.get(class(b.to - b.from))
	}
	n, err := s.tls.Write(b.bytes())
	b.from += n
	if err != nil {
		return n, err
	}
	return n, s.flush()
}

// flush sends what TLS has made of earlier writes.
func (s *side) flush() error {
	if s.wire == nil {
		return nil
	}
	blocked, err := s.wire.flush()
	if blocked {
		s.open = false
	}
	return err
}

// holds reports whether the wire has something to send.
func (s *side) holds() bool { return s.wire != nil && s.wire.out != nil }

// discard reads what is there and forgets it, without TLS. It returns false at the end.
func (s *side) discard(b *buffer) (more bool) {
	for rounds := 0; s.ready && rounds < 16; rounds++ {
		n, err := s.fd.receive(&s.pool.calls, b.p)
		switch {
		case err == syscall.EAGAIN:
			s.ready = false
		case err != nil:
			return false
		case n < len(b.p) && !s.hup:
			s.ready = false
		}
	}
	return true
}
