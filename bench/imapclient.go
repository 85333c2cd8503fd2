package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// imapSession is a client that is logged in.
type imapSession struct {
	socket net.Conn // of the operating system
	conn   net.Conn // it, or TLS over it
	in     *bufio.Reader
}

// clientTLS is how clients speak TLS: without a cache of sessions nothing is resumed.
var clientTLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}

// openIMAP connects and logs in.
func openIMAP(addr string, secure bool, buffer int) (*imapSession, error) {
	socket, err := net.DialTimeout("tcp", addr, loginPatient)
	if err != nil {
		return nil, err
	}
	s := &imapSession{socket: socket, conn: socket}
	if secure {
		s.conn = tls.Client(socket, clientTLS)
	}
	s.in = bufio.NewReaderSize(s.conn, buffer)
	err = socket.SetDeadline(time.Now().Add(loginPatient))
	if err == nil {
		err = s.ask("", "* OK")
	}
	if err == nil {
		err = s.ask("a LOGIN "+recipient+" secret\r\n", "a OK")
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return s, nil
}

// loginOnce is a whole session without work.
func loginOnce(addr string, secure bool) error {
	s, err := openIMAP(addr, secure, 512)
	if err != nil {
		return err
	}
	defer s.socket.Close()
	if err := s.ask("b LOGOUT\r\n", "b OK"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("end of a session: %w", err)
	}
	return nil
}

// ask sends a command and reads up to the line that begins with the prefix.
func (s *imapSession) ask(command, prefix string) error {
	if command != "" {
		if _, err := io.WriteString(s.conn, command); err != nil {
			return fmt.Errorf("send %q: %w", command, err)
		}
	}
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("answer to %q: %w", command, err)
		}
		if strings.HasPrefix(string(line), prefix) {
			return nil
		}
		if !strings.HasPrefix(string(line), "*") {
			return fmt.Errorf("answer to %q is %q, want %s", command, line, prefix)
		}
	}
}

// fetch reads the message.
func (s *imapSession) fetch() error {
	if err := s.socket.SetDeadline(time.Now().Add(loginPatient)); err != nil {
		return err
	}
	if err := s.ask("c FETCH 1 BODY[]\r\n", "* 1 FETCH"); err != nil {
		return err
	}
	if n, err := s.in.Discard(fetchBytes); err != nil {
		return fmt.Errorf("message ends after %d bytes: %w", n, err)
	}
	if err := s.ask("", ")"); err != nil {
		return err
	}
	return s.ask("", "c OK")
}
