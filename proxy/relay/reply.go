package relay

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"mailcutover/mail"
)

const (
	// maxReplyLine is the longest line taken, CRLF included. RFC 5321 section
	// 4.5.3.1.5 allows 512; Exchange's diagnostic texts are known to be longer.
	maxReplyLine = 4096
	// maxReplyLines is how many lines one reply may have.
	maxReplyLines = 128
	// maxReplyText is how much of a refusal's text is kept and passed on, in bytes: it
	// fits one reply line of ours.
	maxReplyText = 400
)

// replyReader reads replies (RFC 5321 section 4.2), strictly and within bounds.
type replyReader struct {
	br   *bufio.Reader
	text []byte // lines of the last reply without codes, each ended by LF; reused
}

// read returns the code of the next reply. Its lines are in r.text until the next call.
// Errors that wrap ErrProtocol are about its form, others come from the connection.
func (r *replyReader) read() (code int, err error) {
	r.text = r.text[:0]
	for n := 1; ; n++ {
		if n > maxReplyLines {
			return 0, fmt.Errorf("%w: reply of more than %d lines", ErrProtocol, maxReplyLines)
		}
		line, err := r.br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return 0, fmt.Errorf("%w: reply line of more than %d bytes", ErrProtocol, maxReplyLine)
		}
		if err != nil {
			return 0, err
		}
		c, last, text, ok := parseReplyLine(line)
		if !ok {
			return 0, fmt.Errorf("%w: malformed reply %q", ErrProtocol, mail.CleanText(line, 80))
		}
		if n > 1 && c != code {
			return 0, fmt.Errorf("%w: reply changes its code from %d to %d", ErrProtocol, code, c)
		}
		code = c
		r.text = append(append(r.text, text...), '\n')
		if last {
			return code, nil
		}
	}
}

// parseReplyLine takes a line with its CRLF apart.
func parseReplyLine(line []byte) (code int, last bool, text []byte, ok bool) {
	n := len(line) - 2
	if n < 3 || line[n] != '\r' || line[n+1] != '\n' {
		return 0, false, nil, false
	}
	if line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '5' || line[2] < '0' || line[2] > '9' {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if n == 3 {
		return code, true, nil, true
	}
	text = line[4:n]
	for _, c := range text {
		if c == 0 || c == '\r' {
			return 0, false, nil, false
		}
	}
	return code, line[3] == ' ', text, line[3] == ' ' || line[3] == '-'
}

// makeReply makes an error of a reply's code and lines as replyReader keeps them. The
// lines become one, each without the enhanced code; a missing one becomes X.0.0.
func makeReply(code int, lines []byte) *mail.Reply {
	class := code / 100
	r := mail.NewReply(code, class, 0, 0, "")
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n") {
		if subject, detail, rest, ok := cutEnhanced(line, class); ok {
			if i == 0 {
				r.EnhancedCode = [3]int{class, subject, detail}
			}
			line = rest
		}
		if line != "" && b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(line)
	}
	r.Message = mail.CleanText([]byte(b.String()), maxReplyText)
	return r
}

// cutEnhanced takes the enhanced code (RFC 3463 section 2, RFC 2034 section 4) of the
// given class off a line.
func cutEnhanced(line string, class int) (subject, detail int, rest string, ok bool) {
	word, rest, _ := strings.Cut(line, " ")
	if len(word) < 5 || word[0] != byte('0'+class) || word[1] != '.' {
		return 0, 0, "", false
	}
	s, d, ok := strings.Cut(word[2:], ".")
	if !ok {
		return 0, 0, "", false
	}
	subject, ok1 := digits(s)
	detail, ok2 := digits(d)
	return subject, detail, rest, ok1 && ok2
}

// digits parses one to three digits.
func digits(s string) (n int, ok bool) {
	if len(s) < 1 || len(s) > 3 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}
