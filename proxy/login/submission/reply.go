package submission

import (
	"errors"
	"fmt"
	"strings"

	"mailcutover/mail"
	"mailcutover/proxy/login"
)

const (
	// maxReplyLine is the longest line taken from a platform, in bytes with CRLF. RFC 5321
	// section 4.5.3.1.5 allows 512; Exchange's texts are known to be longer.
	maxReplyLine = 4096
	// maxReplyLines is how many lines one reply may have.
	maxReplyLines = 128
	// maxText is how much of a reply's text is passed on or logged, in bytes.
	maxText = 400
)

// reply is a platform's answer (RFC 5321 section 4.2).
type reply struct {
	code  int
	lines []string // without codes
}

// errProtocol is for a platform that doesn't keep to the protocol.
var errProtocol = errors.New("protocol error")

// readReply reads a reply, strictly and within bounds.
func readReply(l *login.Leg) (*reply, error) {
	r := &reply{}
	for len(r.lines) < maxReplyLines {
		line, err := l.ReadLine(maxReplyLine)
		if err != nil {
			return nil, err
		}
		code, last, text, ok := parseReplyLine(string(line))
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: malformed reply %q", errProtocol, mail.CleanText(line, 80))
		case len(r.lines) > 0 && code != r.code:
			return nil, fmt.Errorf("%w: reply changes its code from %d to %d", errProtocol, r.code, code)
		}
		r.code = code
		r.lines = append(r.lines, text)
		if last {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: reply of more than %d lines", errProtocol, maxReplyLines)
}

// parseReplyLine takes a line without its CRLF apart.
func parseReplyLine(line string) (code int, last bool, text string, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '5' || line[2] < '0' || line[2] > '9' {
		return 0, false, "", false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, "", true
	}
	return code, line[3] == ' ', line[4:], line[3] == ' ' || line[3] == '-'
}

// line returns the reply as one line of ours, without its end: all its texts, with one
// enhanced code in front, which is the given one if the platform has none (RFC 2034 section 4).
func (r *reply) line(enhanced string) string {
	var texts []string
	for i, text := range r.lines {
		word, rest, _ := strings.Cut(text, " ")
		if isEnhanced(word, r.code/100) {
			if i == 0 {
				enhanced = word
			}
			text = rest
		}
		if text != "" {
			texts = append(texts, text)
		}
	}
	line := fmt.Sprintf("%d %s %s", r.code, enhanced, mail.CleanText([]byte(strings.Join(texts, " ")), maxText))
	return strings.TrimRight(line, " ")
}

// isEnhanced reports whether a word is an enhanced code of a class (RFC 3463 section 2).
func isEnhanced(word string, class int) bool {
	parts := strings.Split(word, ".")
	if len(parts) != 3 || parts[0] != fmt.Sprint(class) {
		return false
	}
	for _, p := range parts {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}
