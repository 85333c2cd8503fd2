package msgkey

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// Content returns the key of what is in a message: its subject, its text and its
// attachments' bytes, all decoded. r is the whole message with its header; it is read to its
// end, or to its first error, which is returned. Memory doesn't grow with the message.
//
// The key doesn't depend on transfer encodings, charsets, boundaries, MIME headers, the order
// of attachments, line ends and white space in text, nor on which other forms of a text stand
// beside the plain one. It does depend on what a platform can't give back once it took the
// message apart: a plain text made anew from HTML, or what was in a TNEF attachment. A
// message whose MIME structure can't be read is digested as it stands, but for line ends.
func Content(r io.Reader) (Key, error) {
	source := &source{r: r}
	raw := rawDigest{sum: sha256.New()}
	in := bufio.NewReaderSize(io.TeeReader(source, &raw), 16<<10)
	header := readHeader(in)
	facts := Parse(header, "")
	w := walker{}
	leaves := w.entity(mimeHeader(header), in, 0)
	io.Copy(io.Discard, in) // only source's own error matters, and it is looked at below
	if source.err != nil {
		return Key{}, source.err
	}
	if w.broken {
		return digest(kindContent, "raw", string(raw.sum.Sum(nil))), nil
	}
	parts := make([]string, 0, len(leaves)+1)
	for _, leaf := range leaves {
		parts = append(parts, string(leaf[:]))
	}
	slices.Sort(parts)
	return digest(kindContent, append(parts, "subject", plainSubject(facts.Subject))...), nil
}

// source remembers how reading ended: parsers make errors of their own out of it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// rawDigest digests bytes without carriage returns.
type rawDigest struct{ sum hash.Hash }

func (d *rawDigest) Write(p []byte) (int, error) {
	rest := p
	for {
		i := slices.Index(rest, '\r')
		if i < 0 {
			break
		}
		d.sum.Write(rest[:i])
		rest = rest[i+1:]
	}
	d.sum.Write(rest)
	return len(p), nil
}

// maxHeader bounds what is read of a header; what is longer goes on as body.
const maxHeader = 256 << 10

// readHeader reads up to and with the empty line.
func readHeader(in *bufio.Reader) []byte {
	var header []byte
	for len(header) < maxHeader {
		line, err := in.ReadSlice('\n')
		start := len(header) == 0 || header[len(header)-1] == '\n'
		header = append(header, line...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		if start && (string(line) == "\n" || string(line) == "\r\n") {
			break
		}
	}
	return header
}

// mimeHeader returns the fields of a header that say what the body is.
func mimeHeader(header []byte) textproto.MIMEHeader {
	fields := make(textproto.MIMEHeader)
	rest := string(header)
	for rest != "" {
		var field string
		if field, rest = nextField(rest); field == "" {
			break
		}
		name, value, _ := strings.Cut(field, ":")
		name = textproto.CanonicalMIMEHeaderKey(strings.TrimRight(name, " \t"))
		if strings.HasPrefix(name, "Content-") && fields[name] == nil {
			fields[name] = []string{unfold(value, MaxField)}
		}
	}
	return fields
}

const (
	maxDepth  = 20     // of parts within parts
	maxLeaves = 10_000 // in a message
)

// leaf is the digest of one text or attachment.
type leaf [sha256.Size]byte

// walker goes through a message's parts.
type walker struct {
	leaves int
	broken bool // the structure can't be read
}

// entity returns the leaves of a message or part.
func (w *walker) entity(header textproto.MIMEHeader, body io.Reader, depth int) []leaf {
	if depth > maxDepth || w.leaves >= maxLeaves {
		w.broken = true
	}
	if w.broken {
		return nil
	}
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	if kind == "" || err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		kind = "text/plain"
	}
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		if parameters["boundary"] == "" {
			w.broken = true
			return nil
		}
		return w.parts(multipart.NewReader(body, parameters["boundary"]), kind == "multipart/alternative", depth)
	case kind == "message/rfc822":
		in := bufio.NewReader(w.decoded(header, body))
		inner := readHeader(in)
		leaves := w.entity(mimeHeader(inner), in, depth+1)
		subject := Parse(inner, "").Subject
		return append(leaves, sha256.Sum256([]byte("subject "+plainSubject(subject))))
	}
	w.leaves++
	text := w.decoded(header, body)
	disposition, _, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	sum := sha256.New()
	switch {
	case disposition == "attachment" || !strings.HasPrefix(kind, "text/"):
		w.copy(sum, text)
	case kind == "text/html":
		writeHTML(&squeezed{to: sum}, inUTF8(text, parameters["charset"]))
	default:
		w.copy(&squeezed{to: sum}, inUTF8(text, parameters["charset"]))
	}
	return []leaf{leaf(sum.Sum(nil))}
}

// parts returns the leaves of a multipart body; of an alternative, those of the plain form,
// or, without one, of the first.
func (w *walker) parts(parts *multipart.Reader, alternative bool, depth int) []leaf {
	var leaves, plain, first []leaf
	for n := 0; ; n++ {
		part, err := parts.NextRawPart()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.broken = true
			}
			break
		}
		found := w.entity(part.Header, part, depth+1)
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if (kind == "text/plain" || kind == "") && plain == nil {
			plain = found
		}
		if n == 0 {
			first = found
		}
		leaves = append(leaves, found...)
	}
	switch {
	case !alternative:
		return leaves
	case plain != nil:
		return plain
	}
	return first
}

// copy digests a leaf; an encoding that can't be read breaks the structure.
func (w *walker) copy(to io.Writer, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil {
		w.broken = true
	}
}

// decoded returns a body without its transfer encoding.
func (w *walker) decoded(header textproto.MIMEHeader, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return newLenientBase64(body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}

// inUTF8 returns text in UTF-8; in a charset that isn't known, as it is.
func inUTF8(text io.Reader, charset string) io.Reader {
	if charset == "" {
		return text
	}
	encoding, err := htmlindex.Get(charset)
	if err != nil {
		return text
	}
	return encoding.NewDecoder().Reader(text)
}

// plainSubject returns a subject decoded (RFC 2047), without white space.
func plainSubject(field string) string {
	decoder := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		return inUTF8(in, charset), nil
	}}
	text, err := decoder.DecodeHeader(field)
	if err != nil {
		text = field
	}
	return strings.Join(strings.Fields(text), "")
}
