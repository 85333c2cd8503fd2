package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/emersion/go-message"
	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/routing"
)

// ErrNullSender is what [Write] returns for a message that has nobody to tell.
var ErrNullSender = errors.New("message has a null sender")

// Kind is what a notice says, the action field of RFC 3464 section 2.3.3.
type Kind uint8

const (
	KindUnknown Kind = iota // not set: refused
	Failed                  // not delivered, and not tried again
	Delayed                 // not yet delivered, still tried
	Relayed                 // handed to a system that will not report success itself
)

// String returns the word of the action field.
func (k Kind) String() string {
	switch k {
	case Failed:
		return "failed"
	case Delayed:
		return "delayed"
	case Relayed:
		return "relayed"
	default:
		return "unknown"
	}
}

// Wanted reports whether the sender wants a notice of a kind about a recipient, by the
// NOTIFY parameter (RFC 3461 section 4.1). Without it failures and delays are told.
func Wanted(k Kind, o *gosmtp.RcptOptions) bool {
	word := gosmtp.DSNNotifyFailure
	switch k {
	case Failed:
	case Delayed:
		word = gosmtp.DSNNotifyDelayed
	case Relayed:
		word = gosmtp.DSNNotifySuccess
	default:
		return false
	}
	if len(o.Notify) == 0 {
		return k != Relayed
	}
	return slices.Contains(o.Notify, word)
}

// Settings are an installation's.
type Settings struct {
	// Host is our name in the notices: a domain.
	Host string

	// OriginalBytes is the most of an original that is returned, octets. A larger message
	// is returned as its header, a larger header is cut at the end of a field. 0 means
	// the default of 50 KiB.
	OriginalBytes int

	// Contact stands in the text for people, such as a telephone number or the address of
	// a help desk. Empty: the local postmaster.
	Contact string
}

// defaultOriginalBytes is the value of OriginalBytes that Postfix has for bounce_size_limit.
const defaultOriginalBytes = 50_000

// Original is the message that a notice is about.
type Original struct {
	Transaction mail.TransactionID
	From        mail.Path
	Options     gosmtp.MailOptions // EnvelopeID as it stood on the wire: xtext
	MessageID   string             // with its angle brackets; empty: unknown
	Arrived     time.Time
	Size        int64 // octets; what Content has

	// Content is the message itself, from its beginning; as much of it is read as
	// the notice needs. nil, or an error, leaves it away.
	Content io.Reader
}

// Recipient is one that a notice speaks of.
type Recipient struct {
	Address routing.Address    // as the sender knows it: never a platform's own
	Options gosmtp.RcptOptions // OriginalRecipient as it stood on the wire, behind the type

	// Reply is the answer that the last attempt got; nil: none did. A reply with a
	// Platform is quoted as the diagnostic code of that system.
	Reply    *mail.Reply
	Platform routing.PlatformID // that gave Reply; empty: it is ours

	Expired     bool      // Failed because the time for it is over
	LastAttempt time.Time // zero: unknown
	RetryUntil  time.Time // Delayed: when it will fail; zero: unknown
}

// Notice says what is to be told.
type Notice struct {
	Kind        Kind
	Transaction mail.TransactionID // of the notice itself; it makes the Message-ID
	Time        time.Time
	Original    Original
	Recipients  []Recipient // one at least
}

// Message is a notice that is ready to be sent from the null path.
type Message struct {
	To      mail.Path
	Options gosmtp.MailOptions
	Content []byte // with CRLF line ends
	ID      string // its Message-ID, with angle brackets
}

// Write makes the notice. Errors are ErrNullSender, or say what is missing.
func Write(s Settings, n *Notice) (*Message, error) {
	switch {
	case n.Original.From.IsNull():
		return nil, fmt.Errorf("notice about message %s: %w", n.Original.Transaction, ErrNullSender)
	case n.Kind != Failed && n.Kind != Delayed && n.Kind != Relayed, len(n.Recipients) == 0, s.Host == "":
		return nil, fmt.Errorf("notice about message %s: kind %s, %d recipients, host %q: want all three", n.Original.Transaction, n.Kind, len(n.Recipients), s.Host)
	}
	if s.OriginalBytes <= 0 {
		s.OriginalBytes = defaultOriginalBytes
	}
	w := &writer{Settings: s, n: n, global: global(n)}
	m := &Message{To: n.Original.From, ID: "<" + string(n.Transaction) + "@" + s.Host + ">"}
	if !n.Original.From.IsASCII() {
		m.Options.UTF8 = true
	}
	var out bytes.Buffer
	if err := w.write(&out, m.ID); err != nil {
		return nil, fmt.Errorf("notice about message %s: %w", n.Original.Transaction, err)
	}
	m.Content = out.Bytes()
	m.Options.Size = int64(out.Len())
	if w.eightBit || m.Options.UTF8 {
		m.Options.Body = gosmtp.Body8BitMIME
	}
	return m, nil
}

// global reports whether the forms of RFC 6533 are due: for a message that came with
// SMTPUTF8, whose sender therefore understands them, or with addresses that need it.
func global(n *Notice) bool {
	return n.Original.Options.UTF8 || !n.Original.From.IsASCII()
}

// writer makes one notice.
type writer struct {
	Settings
	n        *Notice
	global   bool
	eightBit bool // content that was not encoded has bytes over 0x7f
}

func (w *writer) write(out io.Writer, id string) error {
	var h message.Header
	// Fields are added last first: the library writes them so.
	h.SetContentType("multipart/report", map[string]string{"report-type": w.mediaType("delivery-status")})
	h.Add("MIME-Version", "1.0")
	h.Add("Auto-Submitted", "auto-replied") // RFC 3834 section 5
	if ref := w.n.Original.MessageID; isMessageID(ref) {
		h.Add("References", ref)
		h.Add("In-Reply-To", ref)
	}
	h.Add("Message-ID", id)
	h.Add("Date", w.n.Time.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	h.Add("Subject", subjects[w.n.Kind])
	h.Add("To", "<"+w.n.Original.From.String()+">")
	h.Add("From", "Mail Delivery System <MAILER-DAEMON@"+w.Host+">")

	mw, err := message.CreateWriter(out, h)
	if err != nil {
		return err
	}
	if err := w.part(mw, "text/plain", "quoted-printable", []byte(w.text())); err != nil {
		return err
	}
	status := w.status()
	encoding := ""
	if !isASCII(status) {
		encoding = "base64" // RFC 6533 section 4 allows it, and no hop has to take 8 bits
	}
	if err := w.part(mw, "message/"+w.mediaType("delivery-status"), encoding, status); err != nil {
		return err
	}
	if err := w.original(mw); err != nil {
		return err
	}
	return mw.Close()
}

// mediaType puts the name that RFC 6533 has for a subtype in its place.
func (w *writer) mediaType(sub string) string {
	if w.global {
		return "global-" + sub
	}
	return sub
}

// part adds a part. encoding is a Content-Transfer-Encoding; empty: none.
func (w *writer) part(mw *message.Writer, mediaType, encoding string, content []byte) error {
	var h message.Header
	if encoding != "" {
		h.Set("Content-Transfer-Encoding", encoding)
	}
	params := map[string]string{}
	if mediaType == "text/plain" {
		params["charset"] = "utf-8"
	}
	h.SetContentType(mediaType, params)
	h.Set("Content-Description", descriptions[mediaType])
	pw, err := mw.CreatePart(h)
	if err != nil {
		return fmt.Errorf("part %s: %w", mediaType, err)
	}
	if _, err := pw.Write(content); err != nil {
		return fmt.Errorf("part %s: %w", mediaType, err)
	}
	return pw.Close()
}

var descriptions = map[string]string{
	"text/plain":                     "Notification",
	"message/delivery-status":        "Delivery report",
	"message/global-delivery-status": "Delivery report",
	"message/rfc822":                 "Original message",
	"message/global":                 "Original message",
	"text/rfc822-headers":            "Header of the original message",
	"message/global-headers":         "Header of the original message",
}

func isASCII(p []byte) bool {
	for _, c := range p {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// isMessageID reports whether s can stand in a header as a message id (RFC 5322 section
// 3.6.4); one that was cut, or that its sender made of something else, can not.
func isMessageID(s string) bool {
	if len(s) < 5 || len(s) > 250 || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	at := 0
	for _, c := range []byte(s[1 : len(s)-1]) {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' {
			return false
		}
		if c == '@' {
			at++
		}
	}
	return at == 1
}
