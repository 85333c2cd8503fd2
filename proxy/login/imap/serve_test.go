package imap

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
)

// causes by their words.
var causes = func() map[string]login.Cause {
	m := map[string]login.Cause{}
	for c := login.CauseUnknown; c <= login.CauseOperator; c++ {
		m[c.String()] = c
	}
	return m
}()

// TestServe plays clients:
//
//	front [tls] [require] [secure] [errors=n] [line=n] [token=n]
//	answer ok BEFORE|FINAL       what the next login comes to
//	answer CAUSE [ANSWER]
//	--
//	C: line                      sent, with CRLF
//	C> bytes                     sent
//	tls                          the client's part of a handshake
//	S: line                      what came of it
//	attempt ...                  a login that came to the core
//	result ...                   what Serve returned
//
// When the transcript is over the client says that it sends no more.
func TestServe(t *testing.T) {
	transcripts(t, "serve", []string{"S:", "attempt", "result"}, func(tr *transcript) {
		server, client := certificates(tr.t)
		here, there := pair(tr.t)
		options := login.ConnOptions{
			Net:   there,
			Front: login.Front{Hostname: "mx.example", LineBytes: 1024, TokenBytes: 2048, Errors: 5},
			Idle:  time.Minute,
		}
		answers := settings(tr, &options)
		if options.Front.TLS {
			options.TLS = func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }
		}
		var attempts []string
		var secrets [][]byte
		options.Login = func(a *login.Attempt) (*login.Session, login.Welcome, error) {
			attempts = append(attempts, fmt.Sprintf("attempt name=%q authorize=%q mechanism=%d secret=%q id=%q",
				a.Name, a.Authorize, a.Mechanism, a.Secret, a.ID))
			secrets = append(secrets, a.Secret)
			if len(answers) == 0 {
				return nil, login.Welcome{}, &login.Refusal{}
			}
			answer := answers[0]
			answers = answers[1:]
			if answer.err != nil {
				return nil, login.Welcome{}, answer.err
			}
			return new(login.Session), answer.welcome, nil
		}
		var result string
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer there.Close()
			c := login.NewConn(options)
			session, err := Dialogue{}.Serve(c)
			result = fmt.Sprintf("result error=%v", err)
			if session != nil {
				result = fmt.Sprintf("result session rest=%q error=%v", c.Rest(), err)
			}
		}()
		defer func() { _ = here.Close(); <-done }()

		e := &end{tr: tr, nc: here, r: bufio.NewReader(here), prefix: "S:"}
		e.heard()
		for word, rest, ok := tr.next(); ok; word, rest, ok = tr.next() {
			switch word {
			case "C:":
				e.send(bytesOf(tr.t, rest) + "\r\n")
			case "C>":
				e.send(bytesOf(tr.t, rest))
			case "tls":
				e.upgrade(tls.Client(e.nc, client))
			default:
				tr.t.Fatalf("unknown: %s", word)
			}
			e.heard()
		}
		if c, ok := e.nc.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		e.over()
		<-done
		for _, a := range attempts {
			tr.output(a)
		}
		tr.output(result)
		for _, s := range secrets {
			if len(bytes.Trim(s, "\x00")) > 0 {
				tr.t.Error("a secret is left in memory")
			}
		}
	})
}

type answer struct {
	welcome login.Welcome
	err     error
}

// settings reads a transcript up to its line "--".
func settings(tr *transcript, o *login.ConnOptions) (answers []answer) {
	for {
		word, rest, ok := tr.next()
		switch {
		case !ok:
			tr.t.Fatal("no line --")
		case word == "--":
			return answers
		case word == "front":
			for setting := range strings.FieldsSeq(rest) {
				key, value, _ := strings.Cut(setting, "=")
				n, _ := strconv.Atoi(value)
				switch key {
				case "tls":
					o.Front.TLS = true
				case "require":
					o.Front.RequireTLS = true
				case "secure":
					o.Secure = true
				case "errors":
					o.Front.Errors = n
				case "line":
					o.Front.LineBytes = n
				case "token":
					o.Front.TokenBytes = n
				default:
					tr.t.Fatalf("unknown: %s", setting)
				}
			}
		case word == "answer":
			kind, text, _ := strings.Cut(rest, " ")
			text = bytesOf(tr.t, text)
			if kind == "ok" {
				before, final, _ := strings.Cut(text, "|")
				answers = append(answers, answer{welcome: login.Welcome{Before: []byte(before), Final: []byte(final)}})
				continue
			}
			cause, ok := causes[kind]
			if !ok {
				tr.t.Fatalf("unknown: %s", kind)
			}
			answers = append(answers, answer{err: &login.Refusal{Cause: cause, Answer: []byte(text)}})
		default:
			tr.t.Fatalf("unknown: %s", word)
		}
	}
}
