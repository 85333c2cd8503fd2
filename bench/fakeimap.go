package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"mailcutover/test/peers"
)

// fakeIMAP is the platform: as fast as this process can, and without mail.
type fakeIMAP struct {
	addr string
	body []byte // a part of the message

	mu    sync.Mutex
	conns map[net.Conn]bool // open ones
}

// startFakeIMAP starts the platform. It ends with the test.
func startFakeIMAP(t peers.TB) *fakeIMAP {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("platform: %v", err)
	}
	f := &fakeIMAP{addr: ln.Addr().String(), conns: make(map[net.Conn]bool), body: slices.Repeat([]byte("a line of a message of 64 bytes, of which there are very many\r\n"), (1<<20)/64)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			serving.Go(func() {
				f.serve(conn)
				conn.Close()
				f.mu.Lock()
				delete(f.conns, conn)
				f.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for conn := range f.conns {
			conn.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

const fakeCapability = "CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE AUTH=PLAIN"

// serve answers one client until it leaves.
func (f *fakeIMAP) serve(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1024)
	say := func(text string) bool {
		_, err := io.WriteString(conn, text)
		return err == nil
	}
	if !say("* OK [" + fakeCapability + "] ready\r\n") {
		return
	}
	for {
		line, err := f.command(conn, in)
		if err != nil {
			return
		}
		tag, rest, _ := strings.Cut(line, " ")
		verb, _, _ := strings.Cut(rest, " ")
		going := true
		switch strings.ToUpper(verb) {
		case "CAPABILITY":
			going = say("* " + fakeCapability + "\r\n" + tag + " OK done\r\n")
		case "ID":
			going = say("* ID NIL\r\n" + tag + " OK done\r\n")
		case "AUTHENTICATE":
			if strings.Count(rest, " ") < 2 {
				if going = say("+ \r\n"); going {
					_, err = f.command(conn, in)
				}
			}
			going = going && err == nil && say(tag+" OK ["+fakeCapability+"] logged in\r\n")
		case "LOGIN":
			going = say(tag + " OK [" + fakeCapability + "] logged in\r\n")
		case "FETCH":
			going = f.message(conn, tag)
		case "LOGOUT":
			say("* BYE bye\r\n" + tag + " OK done\r\n")
			return
		default:
			going = say(tag + " OK done\r\n")
		}
		if !going {
			return
		}
	}
}

// command reads a command with its literals.
func (f *fakeIMAP) command(conn net.Conn, in *bufio.Reader) (string, error) {
	var all strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		all.WriteString(line)
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}") {
			return all.String(), nil
		}
		var n int
		if _, err := fmt.Sscanf(line[open:], "{%d", &n); err != nil || n < 0 || n > 1<<16 {
			return "", fmt.Errorf("literal %q", line[open:])
		}
		if !strings.HasSuffix(line, "+}") {
			if _, err := io.WriteString(conn, "+ go on\r\n"); err != nil {
				return "", err
			}
		}
		if _, err := io.CopyN(&all, in, int64(n)); err != nil {
			return "", err
		}
	}
}

// message answers a FETCH.
func (f *fakeIMAP) message(conn net.Conn, tag string) bool {
	if _, err := fmt.Fprintf(conn, "* 1 FETCH (BODY[] {%d}\r\n", fetchBytes); err != nil {
		return false
	}
	for left := fetchBytes; left > 0; left -= len(f.body) {
		if _, err := conn.Write(f.body[:min(left, len(f.body))]); err != nil {
			return false
		}
	}
	_, err := io.WriteString(conn, ")\r\n"+tag+" OK done\r\n")
	return err == nil
}
