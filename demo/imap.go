package demo

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// imap is the side of a platform on which users read their mail: it takes every login, says in
// its answer who it is, whose mailbox that is and when, and then idles.
type imap struct {
	name   string
	socket net.Listener
	served sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// startIMAP serves on a free port of the loopback interface.
func startIMAP(name string) (*imap, error) {
	p := &imap{name: name, conns: make(map[net.Conn]struct{})}
	var err error
	if p.socket, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start platform %s: %w", name, err)
	}
	p.served.Go(func() {
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
				p.served.Go(func() { p.serve(conn) })
			}
			p.mu.Unlock()
		}
	})
	return p, nil
}

func (p *imap) addr() string { return p.socket.Addr().String() }

func (p *imap) close() {
	_ = p.socket.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.served.Wait()
}

// serve speaks with one client, or rather with the node in its name.
func (p *imap) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
	}()
	const can = "IMAP4rev1 IDLE SASL-IR AUTH=PLAIN"
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("* OK [CAPABILITY %s] %s", can, p.name)
	lines := bufio.NewScanner(conn)
	idling := ""
	for lines.Scan() {
		tag, rest, _ := strings.Cut(strings.TrimSuffix(lines.Text(), "\r"), " ")
		command, argument, _ := strings.Cut(rest, " ")
		switch {
		case idling != "" && strings.EqualFold(tag, "DONE"):
			say("%s OK", idling)
			idling = ""
		case strings.EqualFold(command, "CAPABILITY"):
			say("* CAPABILITY %s", can)
			say("%s OK", tag)
		case strings.EqualFold(command, "AUTHENTICATE"):
			_, response, _ := strings.Cut(argument, " ")
			raw, err := base64.StdEncoding.DecodeString(response)
			parts := bytes.Split(raw, []byte{0})
			if err != nil || len(parts) != 3 {
				say("%s BAD", tag)
				continue
			}
			say("%s OK [CAPABILITY %s] %s %s %d", tag, can, p.name, parts[1], time.Now().UnixNano())
		case strings.EqualFold(command, "IDLE"):
			idling = tag
			say("+ idling")
		case strings.EqualFold(command, "NOOP"):
			say("%s OK Nothing is new", tag)
		case strings.EqualFold(command, "LOGOUT"):
			say("* BYE")
			say("%s OK", tag)
			return
		default:
			say("%s BAD", tag)
		}
	}
}
