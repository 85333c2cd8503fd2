package sasl

import (
	"bytes"
	"fmt"
	"strings"
)

// readPlain reads a message of PLAIN (RFC 4616 section 2): authzid NUL authcid NUL password.
// authzid may be empty, the others not. password is part of msg.
func readPlain(msg []byte) (authzid, authcid string, password []byte, err error) {
	parts := bytes.Split(msg, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return "", "", nil, fmt.Errorf("%w: PLAIN has %d parts, or an empty one", ErrMalformed, len(parts))
	}
	return string(parts[0]), string(parts[1]), parts[2], nil
}

// encodePlain writes a message of PLAIN. A part with NUL in it is refused, and so is an empty
// authcid or password.
func encodePlain(authzid, authcid string, password []byte) ([]byte, error) {
	if authcid == "" || len(password) == 0 || strings.ContainsRune(authzid+authcid, 0) || bytes.IndexByte(password, 0) >= 0 {
		return nil, fmt.Errorf("%w: PLAIN can't carry this login", ErrMalformed)
	}
	msg := make([]byte, 0, len(authzid)+len(authcid)+len(password)+2)
	msg = append(append(msg, authzid...), 0)
	msg = append(append(msg, authcid...), 0)
	return append(msg, password...), nil
}

// readOAuthBearer reads a client's first message of OAUTHBEARER (RFC 7628 section 3.1), such as
// "n,a=user@example.com,^Ahost=server^Aauth=Bearer TOKEN^A^A". user is the authzid of its
// GS2 header: empty if the message has none. token is part of msg.
func readOAuthBearer(msg []byte) (user string, token []byte, err error) {
	header, rest, found := bytes.Cut(msg, []byte{1})
	flag, name, comma := bytes.Cut(header, []byte{','})
	if !found || !comma || string(flag) != "n" && string(flag) != "y" { // p: a channel binding, which this mechanism has not
		return "", nil, fmt.Errorf("%w: OAUTHBEARER without a GS2 header", ErrMalformed)
	}
	name, end := bytes.CutSuffix(name, []byte{','})
	if !end || bytes.IndexByte(name, ',') >= 0 {
		return "", nil, fmt.Errorf("%w: OAUTHBEARER's GS2 header", ErrMalformed)
	}
	if len(name) > 0 {
		var ok bool
		if name, ok = bytes.CutPrefix(name, []byte("a=")); !ok || len(name) == 0 {
			return "", nil, fmt.Errorf("%w: OAUTHBEARER's GS2 header", ErrMalformed)
		}
		if user, ok = saslName(string(name)); !ok {
			return "", nil, fmt.Errorf("%w: OAUTHBEARER's authzid", ErrMalformed)
		}
	}
	pairs, err := pairs(rest)
	if err != nil {
		return "", nil, fmt.Errorf("OAUTHBEARER: %w", err)
	}
	token, err = bearer(pairs["auth"])
	if err != nil {
		return "", nil, fmt.Errorf("OAUTHBEARER: %w", err)
	}
	return user, token, nil
}

// readXOAuth2 reads a client's first message of XOAUTH2, as Google and Microsoft describe it:
// "user=someone@example.com^Aauth=Bearer TOKEN^A^A". token is part of msg.
func readXOAuth2(msg []byte) (user string, token []byte, err error) {
	pairs, err := pairs(msg)
	if err != nil {
		return "", nil, fmt.Errorf("XOAUTH2: %w", err)
	}
	if len(pairs["user"]) == 0 {
		return "", nil, fmt.Errorf("%w: XOAUTH2 without a user", ErrMalformed)
	}
	token, err = bearer(pairs["auth"])
	if err != nil {
		return "", nil, fmt.Errorf("XOAUTH2: %w", err)
	}
	return string(pairs["user"]), token, nil
}

// encodeOAuthBearer writes a message of OAUTHBEARER, without host and port: what the client
// gave for them names us, not the platform.
func encodeOAuthBearer(user string, token []byte) ([]byte, error) {
	if !speakable(user) || !isToken(token) {
		return nil, fmt.Errorf("%w: OAUTHBEARER can't carry this login", ErrMalformed)
	}
	var msg []byte
	msg = append(msg, "n,a="...)
	msg = append(msg, strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user)...)
	msg = append(msg, ",\x01auth=Bearer "...)
	msg = append(msg, token...)
	return append(msg, "\x01\x01"...), nil
}

// encodeXOAuth2 writes a message of XOAUTH2.
func encodeXOAuth2(user string, token []byte) ([]byte, error) {
	if !speakable(user) || !isToken(token) {
		return nil, fmt.Errorf("%w: XOAUTH2 can't carry this login", ErrMalformed)
	}
	var msg []byte
	msg = append(msg, "user="...)
	msg = append(msg, user...)
	msg = append(msg, "\x01auth=Bearer "...)
	msg = append(msg, token...)
	return append(msg, "\x01\x01"...), nil
}

// maxPairs bounds the keys of an OAuth message; RFC 7628 has seven.
const maxPairs = 16

// pairs reads key=value pairs, each ended by ^A, and one ^A behind them. A key that comes
// twice is refused: two readers could each take another one.
func pairs(rest []byte) (map[string][]byte, error) {
	body, ok := bytes.CutSuffix(rest, []byte("\x01\x01"))
	if !ok {
		return nil, fmt.Errorf("%w: no end", ErrMalformed)
	}
	found := make(map[string][]byte)
	for pair := range bytes.SplitSeq(body, []byte{1}) {
		key, value, ok := bytes.Cut(pair, []byte{'='})
		if !ok || len(key) == 0 || !letters(key) || bytes.IndexByte(value, 0) >= 0 {
			return nil, fmt.Errorf("%w: no key=value", ErrMalformed)
		}
		name := strings.ToLower(string(key))
		if _, twice := found[name]; twice || len(found) == maxPairs {
			return nil, fmt.Errorf("%w: a key twice, or too many", ErrMalformed)
		}
		found[name] = value
	}
	return found, nil
}

// bearer returns the token of "Bearer TOKEN" (RFC 6750 section 2.1); the scheme is
// matched without case (RFC 7235 section 2.1).
func bearer(auth []byte) ([]byte, error) {
	const scheme = "bearer "
	if len(auth) < len(scheme) || !strings.EqualFold(string(auth[:len(scheme)]), scheme) {
		return nil, fmt.Errorf("%w: no bearer token", ErrMalformed)
	}
	token := bytes.TrimLeft(auth[len(scheme):], " ")
	if !isToken(token) {
		return nil, fmt.Errorf("%w: no bearer token", ErrMalformed)
	}
	return token, nil
}

// isToken tells whether p can be a token: visible ASCII. RFC 6750's b64token is
// narrower, but there are servers that issue others.
func isToken(p []byte) bool {
	for _, c := range p {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(p) > 0
}

// speakable tells whether a name can stand in an OAuth message.
func speakable(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// letters tells whether a key is one of RFC 7628's: 1*ALPHA. Digits and underscores are
// taken as well.
func letters(key []byte) bool {
	for _, c := range key {
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

// saslName undoes the quoting of RFC 5801's saslname.
func saslName(s string) (string, bool) {
	if strings.ContainsRune(s, 0) {
		return "", false
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "=")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		switch {
		case strings.HasPrefix(rest, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(rest, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = rest[2:]
	}
}
