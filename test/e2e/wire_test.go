package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// wire is a client that sends exactly the bytes that it is told to.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func dial(addr string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, r: bufio.NewReader(conn)}
	if greeting, err := w.reply(); err != nil || !strings.HasPrefix(greeting, "220 ") {
		conn.Close()
		return nil, fmt.Errorf("greeting %q: %w", greeting, errors.Join(err, errAnswer))
	}
	return w, nil
}

// errAnswer is the error of an answer that wasn't hoped for.
var errAnswer = errors.New("unexpected answer")

// mustDial is dial for the test's goroutine, with the greeting word (EHLO or LHLO).
func mustDial(t testing.TB, addr, hello string) *wire {
	t.Helper()
	w, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close() })
	w.want(t, hello+" out.example", "250")
	return w
}

// send writes bytes as they are. Each MB may take a while longer: it has to pass.
func (w *wire) send(s string) error {
	if err := w.conn.SetDeadline(time.Now().Add(patience + time.Duration(len(s)>>20)*4*time.Second)); err != nil {
		return err
	}
	_, err := io.WriteString(w.conn, s)
	return err
}

// reply reads an answer; its lines are separated by "\n".
func (w *wire) reply() (string, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	var lines []string
	for {
		line, err := w.r.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// ask sends a command and returns its answer.
func (w *wire) ask(command string) (string, error) {
	if err := w.send(command + "\r\n"); err != nil {
		return "", err
	}
	return w.reply()
}

// want sends a command, if there is one, whose answer must begin with prefix.
func (w *wire) want(t testing.TB, command, prefix string) string {
	t.Helper()
	if command != "" {
		if err := w.send(command + "\r\n"); err != nil {
			t.Fatalf("%.200s: %v", command, err)
		}
	}
	got, err := w.reply()
	if err != nil || !strings.HasPrefix(got, prefix) {
		t.Fatalf("%.200s: answer %q, %v; want %q", command, got, err, prefix)
	}
	return got
}

// rest reads all answers until the peer closes.
func (w *wire) rest() []string {
	var all []string
	for {
		got, err := w.reply()
		if err != nil {
			return all
		}
		all = append(all, got)
	}
}

// startTLS begins TLS with whatever certificate there is.
func (w *wire) startTLS(t testing.TB) {
	t.Helper()
	w.want(t, "STARTTLS", "220 ")
	conn := tls.Client(w.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	w.conn, w.r = conn, bufio.NewReader(conn)
}

// envelope sends MAIL and RCPT, which must be taken.
func (w *wire) envelope(t testing.TB, rcpts ...string) {
	t.Helper()
	w.want(t, "MAIL FROM:<sender@out.example>", "250 ")
	for _, rcpt := range rcpts {
		w.want(t, "RCPT TO:<"+rcpt+">", "250 ")
	}
}

// message sends DATA and a message whose lines end in CRLF; dots are doubled here. It
// returns the answer.
func (w *wire) message(t testing.TB, content string) string {
	t.Helper()
	w.want(t, "DATA", "354 ")
	if err := w.send(stuffed(content) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := w.reply()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// stuffed doubles the dots at the beginning of lines (RFC 5321 section 4.5.2).
func stuffed(content string) string {
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	return strings.ReplaceAll(content, "\r\n.", "\r\n..")
}
