package dsn

import (
	"bytes"
	"io"
	"strings"

	"github.com/emersion/go-message"
	gosmtp "github.com/emersion/go-smtp"
)

// original adds what the sender gets back of his message: with RET=FULL of a failed one
// all of it, if it is not too large, else its header (RFC 3461 section 4.3: only a
// failure returns content).
func (w *writer) original(mw *message.Writer) error {
	o := &w.n.Original
	if o.Content == nil {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(o.Content, int64(w.OriginalBytes)+1))
	if err != nil || len(content) == 0 {
		return nil // a sender who is told without his message is better off than one who isn't
	}
	if w.full() && len(content) <= w.OriginalBytes {
		switch {
		case w.global:
			return w.part(mw, "message/global", encodingOf(content), content)
		case isASCII(content):
			return w.part(mw, "message/rfc822", "", content)
		default:
			// message/rfc822 takes no other encoding (RFC 2046 section 5.2.1).
			w.eightBit = true
			return w.part(mw, "message/rfc822", "8bit", content)
		}
	}
	header := headerOf(content, w.OriginalBytes)
	mediaType := "text/rfc822-headers"
	if w.global {
		mediaType = "message/global-headers"
	}
	return w.part(mw, mediaType, encodingOf(header), header)
}

// full reports whether the sender asked for the whole message and it may be returned.
func (w *writer) full() bool {
	o := &w.n.Original
	return w.n.Kind == Failed && o.Options.Return == gosmtp.DSNReturnFull && o.Size <= int64(w.OriginalBytes)
}

// encodingOf returns the encoding that makes content 7-bit; empty if it is already.
func encodingOf(content []byte) string {
	if isASCII(content) && !longLines(content) {
		return ""
	}
	return "base64"
}

// longLines reports whether a line is longer than SMTP takes (RFC 5321 section 4.5.3.1.6).
func longLines(content []byte) bool {
	for line := range bytes.Lines(content) {
		if len(line) > 1000 {
			return true
		}
	}
	return false
}

// headerOf returns the header at the beginning of a message, at most n bytes, cut at the
// end of a field.
func headerOf(content []byte, n int) []byte {
	end, total := 0, 0 // of the last whole field, of the lines seen
	for line := range bytes.Lines(content) {
		if text := strings.TrimRight(string(line), "\r\n"); text == "" {
			return content[:total]
		}
		if line[0] != ' ' && line[0] != '\t' {
			end = total
		}
		total += len(line)
		if total > n {
			return content[:end]
		}
	}
	if total < n {
		return content[:total] // a message that is nothing but a header
	}
	return content[:end]
}
