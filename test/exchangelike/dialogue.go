package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"mailcutover/internal/platformtest"
)

const hostname = "EX01.corp.example"

// extensions are those of a receive connector of Exchange 2016 without TLS and logins.
var extensions = []string{
	"SIZE 37748736", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "BINARYMIME", "CHUNKING", "XRDST",
}

// options make a platform with quirks.
func options(listen string, q quirks, s *store) platformtest.Options {
	e := &exchange{quirks: q, fired: s.fired}
	o := platformtest.Options{
		Listen:     listen,
		Hostname:   hostname,
		Banner:     hostname + " Microsoft ESMTP MAIL Service ready at " + time.Now().Format(time.RFC1123Z),
		Extensions: extensions,
		Script:     e.react,
		Store:      s.store,
		Tarpit:     q.tarpit,
		Idle:       q.idle,
		Lifetime:   q.total,
		Expired: func(lifetime bool) {
			if lifetime {
				s.fired("total")
			} else {
				s.fired("idle")
			}
		},
	}
	if q.smtputf8 {
		o.Extensions = append(append([]string{}, extensions...), "SMTPUTF8")
	}
	return o
}

// exchange decides about answers.
type exchange struct {
	mu     sync.Mutex // for the counts in quirks
	quirks quirks
	ids    int64        // InternalId of the last message
	fired  func(string) // says that a quirk showed
}

func (e *exchange) react(c platformtest.Command) platformtest.Reaction {
	return platformtest.Reaction{Reply: e.reply(c)}
}

// reply returns the answer in Exchange's words, the usual one where they are the same.
func (e *exchange) reply(c platformtest.Command) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	usual := c.Usual[:3]
	switch {
	case c.Verb == platformtest.VerbConnect && e.quirks.maxPerSource > 0 && c.Open > e.quirks.maxPerSource:
		e.fired("max-per-source")
		return "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"
	case c.Verb == "EHLO" && usual == "250":
		_, rest, _ := strings.Cut(c.Usual, "\n")
		return "250-" + hostname + " Hello [127.0.0.1]\n" + rest
	case c.Verb == "MAIL" && usual == "250":
		if e.quirks.noResources != 0 {
			if e.quirks.noResources > 0 {
				e.quirks.noResources--
			}
			e.fired("452")
			return `452 4.3.1 Insufficient system resources (UsedDiskSpace[C:\Program Files\Microsoft\Exchange Server\V15\TransportRoles\data\Queue])`
		}
	case c.Verb == "RCPT" && usual == "250" && e.quirks.unknown.take(path(c.Line)):
		e.fired("unknown")
		return "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient " + path(c.Line) + " not found by SMTP address lookup"
	case c.Verb == "RCPT" && usual == "503":
		return "503 5.5.2 Need mail command"
	case c.Verb == "DATA" && usual == "554":
		return "503 5.5.2 Need rcpt command"
	case c.Verb == "BDAT" && usual == "250":
		return "250 2.6.0 CHUNK received OK, " + strings.Fields(c.Line)[1] + " octets"
	case c.Verb == platformtest.VerbDot && usual == "250":
		return e.taken(c.Transaction)
	case c.Verb == "QUIT":
		return "221 2.0.0 Service closing transmission channel"
	case c.Verb == "RSET":
		return "250 2.0.0 Resetting"
	case usual == "500":
		word, _, _ := strings.Cut(c.Line, " ")
		return "500 5.3.3 Unrecognized command '" + word + "'"
	}
	return ""
}

// taken is the answer to a complete message. There is one for all recipients: if one
// mailbox is busy the others wait with it.
func (e *exchange) taken(t *platformtest.Transaction) string {
	for _, rcpt := range t.Accepted() {
		if e.quirks.busy.take(rcpt) {
			e.fired("432")
			return "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded [Hostname=" + hostname + "]"
		}
	}
	e.ids++
	took := time.Since(t.Began)
	return fmt.Sprintf("250 2.6.0 %s [InternalId=%d, Hostname=%s] %d bytes in %.3f, %.3f KB/sec Queued mail for delivery",
		headerField(t.Body(), "Message-ID"), e.ids, hostname, t.Size, took.Seconds(), float64(t.Size)/1024/max(took.Seconds(), 0.001))
}

// path returns what stands between the angle brackets of a command.
func path(line string) string {
	_, rest, _ := strings.Cut(line, "<")
	before, _, _ := strings.Cut(rest, ">")
	return before
}
