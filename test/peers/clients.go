package peers

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// SourceOptions are those of smtp-source(1); zero values are its defaults.
type SourceOptions struct {
	LMTP       bool
	From, To   string
	Messages   int // in all; 0: 1
	Sessions   int // in parallel; 0: 1
	Recipients int // per message, numbered in front of To; 0: 1
	Length     int // bytes of the body; 0: smtp-source's own little one
	Reconnect  bool
	Args       []string // further ones
}

// Sent is what a run of smtp-source gave.
type Sent struct {
	Took   time.Duration
	Output string
}

// Source runs smtp-source against addr until its messages are sent; a refused message
// ends it and fails the test. Connections are kept unless Reconnect is set.
func Source(t TB, addr string, o SourceOptions) Sent {
	t.Helper()
	Need(t, "smtp-source")
	args := []string{}
	add := func(flag string, n int) {
		if n > 0 {
			args = append(args, flag, fmt.Sprint(n))
		}
	}
	add("-m", o.Messages)
	add("-s", o.Sessions)
	add("-r", o.Recipients)
	add("-l", o.Length)
	if o.From != "" {
		args = append(args, "-f", o.From)
	}
	if o.To != "" {
		args = append(args, "-t", o.To)
	}
	if !o.Reconnect {
		args = append(args, "-d")
	}
	if o.LMTP {
		args = append(args, "-L")
	}
	args = append(args, o.Args...)
	begin := time.Now()
	out := mustRun(t, "smtp-source", append(args, "inet:"+addr)...)
	return Sent{Took: time.Since(begin), Output: out}
}

// Sink is an smtp-sink(1).
type Sink struct {
	*Process
	Addr string
}

// StartSink starts an smtp-sink, which takes everything and keeps nothing, with further
// arguments such as "-L" for LMTP or "-f", "rcpt" to refuse a command.
func StartSink(t TB, args ...string) *Sink {
	t.Helper()
	Need(t, "smtp-sink")
	s := &Sink{Addr: freeAddr(t)}
	path, err := lookPath("smtp-sink")
	if err != nil {
		t.Fatalf("smtp-sink: %v", err)
	}
	if os.Geteuid() == 0 { // as root it insists on another user to become
		args = append([]string{"-u", "nobody"}, args...)
	}
	s.Process = startProcess(t, "smtp-sink", s.Addr, func() *exec.Cmd {
		// The length of the queue of new connections stands after the address.
		return exec.Command(path, append(append([]string{}, args...), "inet:"+s.Addr, "256")...)
	})
	return s
}

// Swaks runs swaks(1) and returns the dialogue and the exit status: 0 sent, 24 no
// recipient accepted, 26 message refused, and so on.
func Swaks(t TB, args ...string) (dialogue string, status int) {
	t.Helper()
	Need(t, "swaks")
	return run(t, nil, "swaks", args...)
}

// Curl runs curl(1), silent but for errors, and returns its output and exit status.
func Curl(t TB, args ...string) (output string, status int) {
	t.Helper()
	Need(t, "curl")
	return run(t, nil, "curl", append([]string{"-sS", "--max-time", "60"}, args...)...)
}

// CurlMail sends a message by curl's smtp: scheme and returns its verbose output and
// exit status.
func CurlMail(t TB, addr, from string, to []string, message []byte) (output string, status int) {
	t.Helper()
	Need(t, "curl")
	args := []string{"-sSv", "--max-time", "60", "--crlf", "--mail-from", from, "-T", "-", "smtp://" + addr}
	for _, rcpt := range to {
		args = append(args, "--mail-rcpt", rcpt)
	}
	return run(t, message, "curl", args...)
}

// Python runs a script with python3(1), which has the clients that many scripts use: smtplib,
// poplib, imaplib. It returns its output, with errors, and its exit status.
func Python(t TB, script string, args ...string) (output string, status int) {
	t.Helper()
	Need(t, "python")
	return run(t, []byte(script), "python3", append([]string{"-"}, args...)...)
}

// HAProxy is an HAProxy in TCP mode in front of one server.
type HAProxy struct {
	*Process
	Addr string
}

// StartHAProxy starts an HAProxy that forwards connections to the server at addr.
// options are further ones of its server line, such as "send-proxy-v2".
func StartHAProxy(t TB, addr string, options ...string) *HAProxy {
	t.Helper()
	Need(t, "haproxy")
	h := &HAProxy{Addr: freeAddr(t)}
	file := tempDir(t, "haproxy") + "/haproxy.cfg"
	writeFile(t, file, fmt.Appendf(nil, `global
    maxconn 8192
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
listen smtp
    bind %s
    server backend %s %s
`, h.Addr, addr, strings.Join(options, " ")))
	path, err := lookPath("haproxy")
	if err != nil {
		t.Fatalf("haproxy: %v", err)
	}
	h.Process = startProcess(t, "haproxy", h.Addr, func() *exec.Cmd {
		return exec.Command(path, "-db", "-f", file)
	})
	return h
}
