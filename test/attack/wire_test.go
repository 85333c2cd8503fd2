package attack

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// wire is a client that sends exactly the bytes that it is told to.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

// dial connects from an address of this host. It reads nothing.
func dial(addr, from string) (*wire, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, in: bufio.NewReader(conn)}
	return w, conn.SetDeadline(time.Now().Add(patience))
}

// mustDial is dial for the test's goroutine, from a trusted address. The connection ends with the
// test.
func (f *front) mustDial(t testing.TB, id string) *wire {
	t.Helper()
	w, err := dial(f.addrs[id], trusted)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close() })
	return w
}

// trusted is an address from which failed logins don't count, stranger is not one.
const (
	trusted  = "127.9.0.1"
	stranger = "127.1.0.1"
)

func (w *wire) send(text string) error {
	_, err := io.WriteString(w.conn, text)
	return err
}

// secure begins TLS at once.
func (w *wire) secure(f *front) error {
	conn := tls.Client(w.conn, f.tlsConfig())
	if err := conn.Handshake(); err != nil {
		return err
	}
	w.conn, w.in = conn, bufio.NewReader(conn)
	return nil
}

// until reads lines up to one that has this in it; all is what was read.
func (w *wire) until(text string) (all string, err error) {
	var b strings.Builder
	for {
		line, err := w.in.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		if strings.Contains(line, text) {
			return b.String(), nil
		}
	}
}

// rest reads until the peer ends the connection; ended is false if it doesn't.
func (w *wire) rest() (all string, ended bool) {
	b, err := io.ReadAll(w.in)
	var late net.Error
	return string(b), !errors.As(err, &late) || !late.Timeout()
}

// upgrade says how a protocol goes over to TLS, and what its greeting and the answers end with.
type upgrade struct {
	id       string // of the listener
	before   string // said before
	greeted  string // the last line of greeting and the answer to before has it
	command  string
	answered string // so does the answer to the command
	noop     string // a command that is answered before and behind a login
	login    string // with name and password as PLAIN's response in the place of %s
	loggedIn string
	closing  string // is answered, and ends the connection
}

var upgrades = []upgrade{
	{"imap", "", "* OK", "a STARTTLS\r\n", "a OK", "n NOOP\r\n", "l AUTHENTICATE PLAIN %s\r\n", "l OK", "z LOGOUT\r\n"},
	{"pop3", "", "+OK", "STLS\r\n", "+OK", "NOOP\r\n", "AUTH PLAIN %s\r\n", "+OK", "QUIT\r\n"},
	{"sieve", "", "OK", "STARTTLS\r\n", "OK", "NOOP\r\n", "AUTHENTICATE \"PLAIN\" \"%s\"\r\n", "OK", "LOGOUT\r\n"},
	{"submission", "EHLO x.example\r\n", "250 ", "STARTTLS\r\n", "220 ", "NOOP\r\n", "AUTH PLAIN %s\r\n", "235 ", "QUIT\r\n"},
	{"mx", "EHLO x.example\r\n", "250 ", "STARTTLS\r\n", "220 ", "NOOP\r\n", "", "", "QUIT\r\n"},
}

// greet reads the greeting, and says what comes before TLS.
func (w *wire) greet(u upgrade) error {
	if u.before == "" {
		_, err := w.until(u.greeted)
		return err
	}
	if _, err := w.until("220 "); err != nil {
		return err
	}
	if err := w.send(u.before); err != nil {
		return err
	}
	_, err := w.until(u.greeted)
	return err
}

// upgraded is a connection behind TLS, with its second greeting read where there is one.
func (f *front) upgraded(t testing.TB, u upgrade) *wire {
	t.Helper()
	w := f.mustDial(t, u.id)
	err := w.greet(u)
	if err == nil {
		err = w.send(u.command)
	}
	if err == nil {
		_, err = w.until(u.answered)
	}
	if err == nil {
		err = w.secure(f)
	}
	switch {
	case err != nil:
	case u.id == "sieve": // tells its capabilities again (RFC 5804 section 2.2)
		_, err = w.until("OK")
	case u.before != "":
		if err = w.send(u.before); err == nil {
			_, err = w.until(u.greeted)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", u.id, err)
	}
	return w
}

// plain is the response of SASL PLAIN.
func plain(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
}
