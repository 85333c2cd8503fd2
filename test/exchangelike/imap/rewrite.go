package imap

import (
	"bytes"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
)

// messageID returns a message's Message-ID; empty: it has none.
func messageID(raw []byte) string {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return ""
	}
	return m.Header.Get("Message-ID")
}

func longestLine(raw []byte) int {
	longest := 0
	for line := range bytes.Lines(raw) {
		longest = max(longest, len(line))
	}
	return longest
}

var boundary = regexp.MustCompile(`(?i)boundary="?([^"\s;]+)"?`)

// rewrite gives back what Exchange would: the same message with other bytes.
func rewrite(raw []byte) []byte {
	header, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		return raw
	}
	var out strings.Builder
	fields := strings.Split(strings.ReplaceAll(strings.ReplaceAll(string(header), "\r\n ", " "), "\r\n\t", " "), "\r\n")
	own := "X-MS-Exchange-Organization-AuthAs: Internal"
	placed := false
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Received"):
			value = strings.ReplaceAll(value, "; ", ";\r\n ")
		case strings.EqualFold(name, "Date"):
			if at, err := mail.ParseDate(value); err == nil {
				value = at.UTC().Format(time.RFC1123Z)
			}
			fallthrough
		default:
			if !placed {
				out.WriteString(own + "\r\n")
				placed = true
			}
		}
		fmt.Fprintf(&out, "%s: %s\r\n", name, value)
	}
	text := out.String() + "\r\n" + string(body)
	if b := boundary.FindStringSubmatch(out.String()); b != nil {
		text = strings.ReplaceAll(text, b[1], fmt.Sprintf("_000_%08X_", len(raw)))
	}
	return []byte(text)
}
