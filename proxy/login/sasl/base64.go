package sasl

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"mailcutover/proxy/login"
)

// ErrMalformed is for a message that isn't what its mechanism says.
var ErrMalformed = errors.New("malformed SASL message")

// ErrTooLong is for a message beyond its bound.
var ErrTooLong = errors.New("SASL message too long")

// strict refuses stray bits behind the last byte; it still skips CR and LF.
var strict = base64.StdEncoding.Strict()

// Decode reads base64 (RFC 4648 section 4) with its padding, and nothing else: no blanks, tabs
// or line breaks. The result is of at most max bytes, else ErrTooLong. An empty text is an
// empty message, not nil.
func Decode(text []byte, max int) ([]byte, error) {
	if len(text)%4 != 0 || bytes.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: no base64", ErrMalformed)
	}
	if len(text)/4 > max/3+1 {
		return nil, ErrTooLong
	}
	msg := make([]byte, strict.DecodedLen(len(text)))
	n, err := strict.Decode(msg, text)
	if err != nil { // its text tells a position only; left out all the same
		clear(msg)
		return nil, fmt.Errorf("%w: no base64", ErrMalformed)
	}
	if n > max {
		clear(msg)
		return nil, ErrTooLong
	}
	return msg[:n], nil
}

// decodeInitial is Decode for an initial response behind the mechanism's name, where "=" is
// an empty message, and an empty text is nothing at all (RFC 4954 section 4, RFC 4959 section 3).
func decodeInitial(text []byte, max int) ([]byte, error) {
	switch string(text) {
	case "=":
		return []byte{}, nil
	case "":
		return nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	return Decode(text, max)
}

// Encode returns msg as base64, with padding, on one line.
func Encode(msg []byte) []byte {
	return strict.AppendEncode(make([]byte, 0, strict.EncodedLen(len(msg))), msg)
}

// Send writes a message in base64, and ends the line. Nothing of it stays but what l has yet to
// send.
func Send(l *login.Leg, msg []byte) {
	text := Encode(msg)
	_, _ = l.Write(text) // kept until it is flushed
	l.Print("\r\n")
	clear(text)
}
