package platformtest

import (
	"crypto/tls"
	"time"
)

// Options say what kind of platform it is. The zero value is an SMTP platform on a free
// port of 127.0.0.1 that announces [DefaultExtensions] and takes everything.
type Options struct {
	Listen   string // host:port; empty: 127.0.0.1:0
	LMTP     bool   // LHLO, and an answer per recipient (RFC 2033)
	Hostname string // in banner and EHLO reply; empty: platform.test
	Banner   string // text of the banner; empty: Hostname and ESMTP or LMTP

	// Extensions are the lines of the EHLO reply after the first one, such as "SIZE 1000".
	// nil means DefaultExtensions; empty, none. STARTTLS is left out where TLS is on.
	Extensions []string

	TLS         *tls.Config // for STARTTLS and ImplicitTLS, see [CA.ServerConfig]
	ImplicitTLS bool        // TLS from the first byte
	Proxy       bool        // each connection begins with a PROXY header, version 1 or 2

	// Users are the logins that AUTH takes (PLAIN and LOGIN) with their passwords.
	Users map[string]string

	// Script decides what to answer; nil: the usual answers. SetScript replaces it.
	Script Script

	// Store is called with each message before its 2yz, from the connection's goroutine;
	// for LMTP, once before the first of the answers. An error makes the answer a 451 and
	// the message not stored. nil: the record is enough.
	Store func(*Transaction) error

	// DiscardBodies keeps size and digest of a message only.
	DiscardBodies bool

	// BareLFEndsData makes LF.LF and LF.CRLF end a message too, as do servers that can be
	// fooled into taking a message's text for commands (SMTP smuggling).
	BareLFEndsData bool

	Tarpit   time.Duration // delay of each 5yz; 0: none
	Idle     time.Duration // 421 4.4.1 after so long without a byte; 0: 5 min (RFC 5321 section 4.5.3.2.7)
	Lifetime time.Duration // 421 4.4.2 on a connection so old, even in the middle of a message; 0: no limit

	// Expired is told of each connection that Idle or Lifetime ends, from the
	// connection's goroutine. nil: nobody.
	Expired func(lifetime bool)
}

// DefaultExtensions are announced unless Options say otherwise.
var DefaultExtensions = []string{"PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"}

// Verbs of a Command that are not the word the client sent.
const (
	VerbConnect = "CONNECT" // the banner
	VerbDot     = "."       // the end of the message, by DATA or by BDAT LAST
)

// Command is something that a client sent and that is answered.
type Command struct {
	Time time.Time
	Conn int    // number of the connection, from 1
	Port int    // the client's port
	Verb string // in upper case; VerbConnect, VerbDot
	Line string // as it arrived, without its CRLF (a bare LF stays); empty for VerbConnect and VerbDot
	Rcpt string // for VerbDot with LMTP: the recipient that the answer is for, as in Rcpt.Path

	// Early is set if the command was there before the one before it was answered
	// (RFC 2920, pipelining); for VerbDot, if the message began before the 354.
	Early bool
	// Open is, for VerbConnect, the number of the open connections from the same address,
	// this one included.
	Open int
	// Usual is, for a script, what is answered if it says nothing. Empty in the record.
	Usual string
	// Transaction is what is known of the transaction; nil outside of one. A script may
	// read it until it returns. It is nil in the record.
	Transaction *Transaction

	Reply string // in the record: what was answered; empty if nothing was
}

// Script decides about the answer to a command. It is called for each one, from the
// connection's goroutine, and must not call the platform's Close.
type Script func(Command) Reaction

// Reaction says how to answer. The zero value is the usual answer.
type Reaction struct {
	// Reply is the answer, such as "451 4.3.2 Busy"; more lines after "\n", each with its
	// code ("250-a\n250 b"). Empty: the usual answer. Its code counts: a command that is
	// answered 4yz or 5yz has no effect, and after 421 the connection is closed.
	Reply string
	Delay time.Duration // before the answer
	Drop  Drop
	Stall bool // no answer: the connection is held open, and nothing is read, until Close

	// InBody is, for DATA, about how many bytes of the message are read, after the usual
	// answer, before Drop or Stall take effect. 0: at the answer.
	InBody int64
}

// Drop says when a connection is dropped.
type Drop uint8

const (
	DropNever   Drop = iota
	DropBefore       // instead of an answer
	DropAfter        // after the answer
	ResetBefore      // as DropBefore, with a TCP reset
)

// On reacts to one verb.
func On(verb string, r Reaction) Script {
	return func(c Command) Reaction {
		if c.Verb == verb {
			return r
		}
		return Reaction{}
	}
}

// First reacts as the first of the scripts that has something to say.
func First(scripts ...Script) Script {
	return func(c Command) Reaction {
		for _, s := range scripts {
			if r := s(c); r != (Reaction{}) {
				return r
			}
		}
		return Reaction{}
	}
}
