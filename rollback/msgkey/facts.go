package msgkey

import (
	"strings"
	"time"

	"mailcutover/mail"
)

// Facts is what is read of a message to know it again. The texts are unfolded, cut to
// MaxField bytes, and otherwise as they stand in the message; they are a person's mail and
// are never logged.
type Facts struct {
	// Transactions are the ids of the Received lines that our installation wrote, newest
	// first. More than one says that the message came by more than once, such as a forward.
	Transactions []mail.TransactionID

	MessageID string // with its angle brackets if it had them; empty: none
	Date      string // the field, not the instant
	From      string
	Sender    string
	To        string
	Cc        string
	List      string // List-Id (RFC 2919); empty: not from a list, as far as the list says so
	Subject   string // not decoded

	Size     int64     // in bytes, as the platform says; 0: not known
	Internal time.Time // when the platform got it (RFC 9051 section 2.3.3); zero: not known
}

// HeaderFields are the names of the fields that [Parse] reads, for a FETCH of them alone.
var HeaderFields = []string{"MESSAGE-ID", "DATE", "FROM", "SENDER", "TO", "CC", "LIST-ID", "SUBJECT", "RECEIVED"}

// MaxField bounds each text in Facts, in bytes. One that is as long was cut, and may name more
// people than it shows.
const MaxField = 2048

const (
	// maxTransactions bounds how many own Received lines are noted: the newest. A message
	// that goes in a circle through us is stopped long before.
	maxTransactions = 32
	// maxReceived is how much of a Received field is looked at, as in mail.TraceScanner, and
	// as much again for the folding that a platform may have added.
	maxReceived = 2048
)

// Parse reads a message's header, whole or only HeaderFields of it, with line ends of any
// kind, folded in any way. It is lenient and never fails: what can't be read is left empty.
// What comes after the header's end is ignored. Of a field that stands several times the
// first counts.
//
// Own Received lines are those with installation's word; another mailcutover's aren't
// looked at.
func Parse(header []byte, installation string) Facts {
	var f Facts
	rest := string(header)
	for rest != "" {
		var field string
		field, rest = nextField(rest)
		if field == "" {
			break
		}
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			continue
		}
		switch name = strings.TrimRight(name, " \t"); {
		case strings.EqualFold(name, "Received"):
			if len(f.Transactions) < maxTransactions {
				if id, ok := ownTransaction(value, installation); ok {
					f.Transactions = append(f.Transactions, id)
				}
			}
		case strings.EqualFold(name, "Message-ID"):
			note(&f.MessageID, value)
		case strings.EqualFold(name, "Date"):
			note(&f.Date, value)
		case strings.EqualFold(name, "From"):
			note(&f.From, value)
		case strings.EqualFold(name, "Sender"):
			note(&f.Sender, value)
		case strings.EqualFold(name, "To"):
			note(&f.To, value)
		case strings.EqualFold(name, "Cc"):
			note(&f.Cc, value)
		case strings.EqualFold(name, "List-Id"):
			note(&f.List, value)
		case strings.EqualFold(name, "Subject"):
			note(&f.Subject, value)
		}
	}
	return f
}

// note keeps a field's first value.
func note(to *string, value string) {
	if *to == "" {
		*to = strings.Clone(unfold(value, MaxField))
	}
}

// nextField cuts the first field with its continuation lines from a header; empty at its end.
func nextField(header string) (field, rest string) {
	end := 0
	for end < len(header) {
		next := len(header)
		if i := strings.IndexByte(header[end:], '\n'); i >= 0 {
			next = end + i + 1
		}
		if end == 0 && strings.Trim(header[:next], "\r\n") == "" {
			return "", ""
		}
		end = next
		if end == len(header) || header[end] != ' ' && header[end] != '\t' {
			break
		}
	}
	return header[:end], header[end:]
}

// unfold returns at most limit bytes of a field's value with every run of white space as one
// space, and none at its ends.
func unfold(value string, limit int) string {
	var b strings.Builder
	space := false
	for i := range len(value) {
		switch c := value[i]; c {
		case ' ', '\t', '\r', '\n', 0:
			space = b.Len() > 0
		default:
			if space {
				b.WriteByte(' ')
				space = false
			}
			if b.Len() >= limit {
				return b.String()
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ownTransaction reads the id from a Received line's value, if the installation wrote it, in
// the form of [mail.Trace].
func ownTransaction(value, installation string) (mail.TransactionID, bool) {
	if installation == "" {
		return "", false
	}
	line := unfold(value, maxReceived)
	_, line, ok := strings.Cut(line, "(mailcutover "+installation+")")
	if !ok {
		return "", false
	}
	words := strings.Fields(strings.ReplaceAll(line, ";", " ; "))
	for i := 0; i+1 < len(words); i++ {
		switch words[i] {
		case ";":
			return "", false
		case "id":
			id, err := mail.ParseTransactionID(words[i+1])
			return id, err == nil
		}
	}
	return "", false
}

// Transaction returns the key of the newest transaction of ours that brought the message:
// "delivered by us". False if none did, as far as the message says; whether it was delivered
// to this mailbox, only the ledger knows.
func (f *Facts) Transaction() (Key, bool) {
	if len(f.Transactions) == 0 {
		return Key{}, false
	}
	k := TransactionKey(f.Transactions[0])
	return k, !k.IsZero()
}
