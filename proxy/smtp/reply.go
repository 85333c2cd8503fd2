package smtp

import (
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// The engine's own answers that are always the same.
var (
	replyTooLong     = mail.NewReply(500, 5, 5, 2, "Line too long")
	replyLineEnd     = mail.NewReply(500, 5, 5, 2, "Lines must end in CRLF")
	replyControl     = mail.NewReply(501, 5, 5, 2, "Control bytes are not allowed")
	replyUnknown     = mail.NewReply(500, 5, 5, 1, "Unknown command")
	replyNotHere     = mail.NewReply(502, 5, 5, 1, "Command not implemented")
	replyNoArgument  = mail.NewReply(501, 5, 5, 4, "This command takes no argument")
	replySequence    = mail.NewReply(503, 5, 5, 1, "Bad sequence of commands")
	replyNoTLS       = mail.NewReply(530, 5, 7, 0, "Must issue a STARTTLS command first")
	replyTooMany     = mail.NewReply(452, 4, 5, 3, "Too many recipients, send to the others later")
	replyTooBig      = mail.NewReply(552, 5, 3, 4, "Message too big")
	replyBare        = mail.NewReply(550, 5, 6, 0, "Message has CR or LF that are not CRLF")
	replyEarly       = mail.NewReply(554, 5, 5, 0, "Synchronization error: message sent before 354")
	replyTimeout     = mail.NewReply(421, 4, 4, 2, "Timeout, closing connection")
	replyDrain       = mail.NewReply(421, 4, 3, 2, "Service is going down, try again later")
	replyFull        = mail.NewReply(421, 4, 3, 2, "Too many connections, try again later")
	replyFullAddress = mail.NewReply(421, 4, 7, 0, "Too many connections from your address")
	replyErrors      = mail.NewReply(421, 4, 7, 0, "Too many errors, closing connection")
	replyRefusals    = mail.NewReply(421, 4, 7, 0, "Too many recipients that can't be taken, closing connection")
	replyIdles       = mail.NewReply(421, 4, 7, 0, "Too many commands without mail, closing connection")
	replyRenew       = mail.NewReply(421, 4, 7, 0, "Too many transactions, connect again")
	replyDoubtful    = mail.NewReply(421, 4, 7, 0, "Closing connection behind a malformed end of message")
	replyLocal       = mail.NewReply(451, 4, 3, 0, "Local error, try again later")
)

// appendReply appends r as it goes on the wire. Text of any origin becomes clean lines;
// an enhanced code (RFC 2034) that is missing, or of another class than the basic one,
// is made X.0.0.
func appendReply(b []byte, r *mail.Reply) []byte {
	text := strings.TrimRight(r.Message, "\r\n")
	for {
		line, rest, more := strings.Cut(text, "\n")
		b = strconv.AppendInt(b, int64(r.Code), 10)
		if more {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if class := r.Code / 100; r.EnhancedCode != gosmtp.NoEnhancedCode && (class == 2 || class == 4 || class == 5) {
			e := r.EnhancedCode
			if e[0] != class {
				e = gosmtp.EnhancedCode{class, 0, 0}
			}
			b = strconv.AppendInt(b, int64(e[0]), 10)
			b = append(b, '.')
			b = strconv.AppendInt(b, int64(e[1]), 10)
			b = append(b, '.')
			b = strconv.AppendInt(b, int64(e[2]), 10)
			b = append(b, ' ')
		}
		b = appendClean(b, strings.TrimSuffix(line, "\r"))
		b = append(b, '\r', '\n')
		if !more {
			return b
		}
		text = rest
	}
}

// replyLineBytes is the longest text in a line of an answer (RFC 5321 section
// 4.5.3.1.5 asks for 512 with code and CRLF).
const replyLineBytes = 490

// appendClean appends s without control bytes, cut to what a line may hold.
func appendClean(b []byte, s string) []byte {
	for i := range min(len(s), replyLineBytes) {
		if c := s[i]; c < ' ' || c == 0x7f {
			b = append(b, '?')
		} else {
			b = append(b, c)
		}
	}
	return b
}

// sessionReply is what a peer is told of a session's error: its reply, if that is one
// that an error can have.
func sessionReply(err error) *mail.Reply {
	if r := mail.AsReply(err); mail.IsTemporary(r) || mail.IsPermanent(r) {
		return r
	}
	return replyLocal
}
