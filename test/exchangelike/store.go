package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/internal/platformtest"
)

// Record is a message that was answered 250.
type Record struct {
	Time      time.Time `json:"time"`
	Port      int       `json:"port"` // the client's
	From      string    `json:"from"`
	Rcpts     []string  `json:"rcpts"`     // that were answered 250
	Delivered []string  `json:"delivered"` // those of them whose mailbox got it; with -dedupe not always all
	MessageID string    `json:"message_id"`
	Size      int64     `json:"size"`           // in bytes, as received
	SHA256    string    `json:"sha256"`         // as received
	Stored    string    `json:"stored_sha256"`  // as stored; with -rewrite another
	Body      []byte    `json:"body,omitempty"` // as stored, with -bodies
}

// store keeps what was accepted.
type store struct {
	dedupe, rewrite, bodies bool
	fired                   func(string) // says that a quirk showed

	mu   sync.Mutex
	have map[string]bool // mailbox and Message-ID, with dedupe
	out  io.Writer       // nil: no record
}

// store takes a message before its 250.
func (s *store) store(t *platformtest.Transaction) error {
	body := t.Body()
	r := Record{
		Time: time.Now(), Port: t.Port,
		From: t.From, Rcpts: t.Accepted(),
		MessageID: headerField(body, "Message-ID"),
		Size:      t.Size, SHA256: hex.EncodeToString(t.SHA256[:]),
	}
	if s.rewrite {
		body = rewrite(body)
	}
	digest := sha256.Sum256(body)
	r.Stored = hex.EncodeToString(digest[:])
	if s.bodies {
		r.Body = body
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rcpt := range r.Rcpts {
		if key := strings.ToLower(rcpt) + " " + r.MessageID; s.dedupe && r.MessageID != "" {
			if s.have[key] {
				s.fired("dedupe")
				continue
			}
			s.have[key] = true
		}
		r.Delivered = append(r.Delivered, rcpt)
	}
	if s.out == nil {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record a message: %w", err)
	}
	if _, err := s.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record a message: %w", err)
	}
	return nil
}

// splitHeader returns header and body without the empty line, and whether there is one.
func splitHeader(message []byte) (header, body []byte, ok bool) {
	if bytes.HasPrefix(message, []byte("\r\n")) {
		return nil, message[2:], true
	}
	before, after, ok := bytes.Cut(message, []byte("\r\n\r\n"))
	return before, after, ok
}

// fields splits a header into fields with their continuation lines.
func fields(header []byte) []string {
	var all []string
	for line := range strings.SplitSeq(string(header), "\r\n") {
		if len(all) > 0 && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")) {
			all[len(all)-1] += "\r\n" + line
		} else if line != "" {
			all = append(all, line)
		}
	}
	return all
}

// headerField returns the value of the first field of that name, unfolded, empty if
// there is none.
func headerField(message []byte, name string) string {
	header, _, _ := splitHeader(message)
	for _, field := range fields(header) {
		key, value, ok := strings.Cut(field, ":")
		if ok && strings.EqualFold(strings.TrimSpace(key), name) {
			return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
		}
	}
	return ""
}

// rewrite makes of a message what Exchange would keep after converting it to its own
// form and back: Received lines of its own, other fields in another order and with its
// own beside them, and new MIME boundaries. Text and Message-ID stay.
func rewrite(message []byte) []byte {
	header, body, ok := splitHeader(message)
	if !ok {
		return message
	}
	old := fields(header)
	slices.Reverse(old)
	rewritten := []string{
		"Received: from " + hostname + " (192.0.2.10) by " + hostname + " (192.0.2.10) with Microsoft SMTP Server id 15.1.2507; " + time.Now().Format(time.RFC1123Z),
		"X-MS-Exchange-Organization-AuthSource: " + hostname,
		"X-MS-Has-Attach:",
	}
	for _, field := range old {
		name, value, _ := strings.Cut(field, ":")
		if strings.EqualFold(name, "Content-Type") {
			if _, params, err := mime.ParseMediaType(strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))); err == nil && params["boundary"] != "" {
				boundary := newBoundary()
				body = bytes.ReplaceAll(body, []byte("--"+params["boundary"]), []byte("--"+boundary))
				field = strings.ReplaceAll(field, params["boundary"], boundary)
			}
		}
		rewritten = append(rewritten, field)
	}
	return slices.Concat([]byte(strings.Join(rewritten, "\r\n")), []byte("\r\n\r\n"), body)
}

// newBoundary makes one in the form of Exchange's.
func newBoundary() string {
	var b [12]byte
	rand.Read(b[:])
	return "_000_" + strings.ToUpper(hex.EncodeToString(b[:])) + "EX01_"
}
