package platformtest

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"
)

// Transaction is one MAIL and what followed it.
type Transaction struct {
	Conn  int // number of the connection, from 1
	Port  int // the client's port
	Began time.Time
	Ended time.Time // when the last answer was decided, or the transaction given up

	Helo     string            // argument of EHLO, LHLO or HELO
	TLS      bool              // the connection was encrypted
	User     string            // by AUTH; empty: none
	Proxy    string            // source address and port of the PROXY header
	XForward map[string]string // attributes of XFORWARD in this session, upper case
	XClient  map[string]string // attributes of XCLIENT in this session, upper case

	From       string   // as it stood between the angle brackets
	MailParams []string // as they stood
	Rcpts      []Rcpt   // in order, those refused too

	// Raw is the message as on the wire: with DATA, the bytes between the 354 and the
	// CRLF.CRLF that ended it, with the first CRLF, without dot and second CRLF, dots
	// still doubled; with BDAT, the chunks. nil with DiscardBodies.
	Raw []byte
	// BDAT is set if the message came in chunks.
	BDAT bool
	// Size and SHA256 are those of the message, dots no longer doubled.
	Size   int64
	SHA256 [sha256.Size]byte

	Complete bool   // the end of the message arrived
	Stored   bool   // the platform took it, for one recipient at least
	Answered bool   // the answers to the end of the message were given, and not dropped by the script
	Reply    string // answer to the end of the message; with LMTP see Rcpt.Result
}

// Rcpt is one RCPT of a transaction.
type Rcpt struct {
	Path   string   // as it stood between the angle brackets
	Params []string // as they stood
	Reply  string   // answer to RCPT
	Result string   // LMTP: answer to the end of the message, empty if none
}

// Accepted reports whether RCPT was answered 2yz.
func (r Rcpt) Accepted() bool { return code(r.Reply)/100 == 2 }

// StoredFor reports whether the message was taken for this recipient of t.
func (t Transaction) StoredFor(path string) bool {
	for _, r := range t.Rcpts {
		if r.Path == path && r.Accepted() && t.Stored && (r.Result == "" || code(r.Result)/100 == 2) {
			return true
		}
	}
	return false
}

// Accepted returns the paths whose RCPT was answered 2yz.
func (t Transaction) Accepted() []string {
	var paths []string
	for _, r := range t.Rcpts {
		if r.Accepted() {
			paths = append(paths, r.Path)
		}
	}
	return paths
}

// Body returns the message: Raw with doubled dots undone.
func (t Transaction) Body() []byte {
	if t.BDAT {
		return t.Raw
	}
	return unstuff(t.Raw)
}

// BareLineEnds counts the CR that no LF follows and the LF that follow no CR in Raw.
func (t Transaction) BareLineEnds() (cr, lf int) {
	for i, b := range t.Raw {
		switch b {
		case '\r':
			if i+1 == len(t.Raw) || t.Raw[i+1] != '\n' {
				cr++
			}
		case '\n':
			if i == 0 || t.Raw[i-1] != '\r' {
				lf++
			}
		}
	}
	return cr, lf
}

func (t *Transaction) clone() Transaction {
	c := *t
	c.Rcpts = slices.Clone(t.Rcpts)
	return c
}

// unstuff removes the dot with which a line begins (RFC 5321 section 4.5.2).
func unstuff(raw []byte) []byte {
	body := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		end := bytes.Index(raw, crlf)
		if end < 0 {
			end = len(raw)
		} else {
			end += len(crlf)
		}
		body = append(body, bytes.TrimPrefix(raw[:end], dot)...)
		raw = raw[end:]
	}
	return body
}

var (
	crlf = []byte("\r\n")
	dot  = []byte(".")
)

// code returns the basic code of a reply, 0 if it has none.
func code(reply string) int {
	n := 0
	for i := range min(3, len(reply)) {
		if reply[i] < '0' || reply[i] > '9' {
			return 0
		}
		n = 10*n + int(reply[i]-'0')
	}
	return n
}
