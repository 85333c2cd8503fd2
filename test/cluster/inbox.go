package cluster

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Inbox is the side of a platform on which users read their mail, by IMAP: it takes every
// login, says in each answer which platform and whose mailbox it is, and records who came
// and what was heard of him.
type Inbox struct {
	platform string
	o        InboxOptions
	socket   net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	visits []*Visit
	spoilt InboxFault
}

// InboxFault is how an inbox misbehaves.
type InboxFault uint8

// Faults of an inbox, from the next login on; the zero value is none.
const (
	InboxWell    InboxFault = iota
	InboxStalls             // a login gets no answer
	InboxDrops              // the connection is closed in place of the answer
	InboxRefuses            // the login is put off
)

// Spoil has it misbehave from now on.
func (p *Inbox) Spoil(how InboxFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoilt = how
}

// Drop closes all connections; new ones are taken.
func (p *Inbox) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *Inbox) fault() InboxFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spoilt
}

// Visit is a login that a platform took.
type Visit struct {
	Platform string
	Login    string // as the platform was told
	At       time.Time
	// Last is when a command of it, or what logged in, was read last on a connection that
	// was still there.
	Last time.Time
}

// InboxOptions say how an inbox takes logins.
type InboxOptions struct {
	Listen   string        // host and port
	TLS      *tls.Config   // from the first byte on; nil: none
	Lifetime time.Duration // after which it ends any connection
}

// StartInbox serves the users of a platform.
func StartInbox(platform string, o InboxOptions) (*Inbox, error) {
	p := &Inbox{platform: platform, o: o, conns: make(map[net.Conn]struct{})}
	var err error
	if p.socket, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("start the inboxes of %s: %w", platform, err)
	}
	p.serving.Go(func() {
		for {
			conn, err := p.socket.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			if p.closed {
				_ = conn.Close()
			} else {
				p.conns[conn] = struct{}{}
				p.serving.Go(func() { p.serve(conn) })
			}
			p.mu.Unlock()
		}
	})
	return p, nil
}

// Addr is where it takes logins.
func (p *Inbox) Addr() string { return p.socket.Addr().String() }

// Close ends it with all its connections.
func (p *Inbox) Close() {
	_ = p.socket.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.serving.Wait()
}

// Visits returns what was recorded.
func (p *Inbox) Visits() []Visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Visit, len(p.visits))
	for i, v := range p.visits {
		all[i] = *v
	}
	return all
}

// there reports whether a connection is up on both sides, as far as this host's kernel knows.
// What was read of one that the node has reset since was in the kernel already, and reaches
// nobody: nothing can be answered to it.
func there(conn net.Conn) bool {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	const established = 1 // TCP_ESTABLISHED, include/net/tcp_states.h
	up := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		up = err == nil && info.State == established
	})
	return err == nil && up
}

// heard notes a command of a visit.
func (p *Inbox) heard(conn net.Conn, v *Visit) {
	at := time.Now()
	if !there(conn) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.At.IsZero() {
		v.At = at
		p.visits = append(p.visits, v)
	}
	v.Last = at
}

// serve speaks with one client, or rather with the node in its name.
func (p *Inbox) serve(raw net.Conn) {
	defer func() {
		_ = raw.Close()
		p.mu.Lock()
		delete(p.conns, raw)
		p.mu.Unlock()
	}()
	if err := raw.SetDeadline(time.Now().Add(p.o.Lifetime)); err != nil {
		return
	}
	conn := raw
	if p.o.TLS != nil {
		conn = tls.Server(raw, p.o.TLS)
	}
	const can = "IMAP4rev1 IDLE SASL-IR AUTH=PLAIN"
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("* OK [CAPABILITY %s] ready", can)
	lines := bufio.NewScanner(conn)
	idling := ""
	var v *Visit
	for lines.Scan() {
		tag, rest, _ := strings.Cut(lines.Text(), " ")
		command, argument, _ := strings.Cut(rest, " ")
		if v != nil {
			p.heard(raw, v)
		}
		switch {
		case idling != "":
			say("%s OK %s %s", idling, p.platform, v.Login)
			idling = ""
		case strings.EqualFold(command, "CAPABILITY"):
			say("* CAPABILITY %s\r\n%s OK", can, tag)
		case v == nil && strings.EqualFold(command, "AUTHENTICATE"):
			_, response, _ := strings.Cut(argument, " ")
			given, err := base64.StdEncoding.DecodeString(response)
			parts := bytes.Split(given, []byte{0})
			if err != nil || len(parts) != 3 {
				say("%s BAD", tag)
				continue
			}
			switch p.fault() {
			case InboxStalls:
				continue
			case InboxDrops:
				return
			case InboxRefuses:
				say("%s NO [UNAVAILABLE] later", tag)
				continue
			}
			v = &Visit{Platform: p.platform, Login: string(parts[1])}
			p.heard(raw, v)
			say("%s OK [CAPABILITY %s] %s %s", tag, can, p.platform, v.Login)
		case v != nil && strings.EqualFold(command, "IDLE"):
			idling = tag
			say("+ idling")
		case strings.EqualFold(command, "LOGOUT"):
			say("* BYE\r\n%s OK", tag)
			return
		default:
			say("%s BAD", tag)
		}
	}
}
