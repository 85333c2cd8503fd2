package corpus

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestCorpusIsWhatItSays(t *testing.T) {
	first, again := All(), All()
	names := make(map[string]bool)
	for i, m := range append(first, Large()) {
		if names[m.Name] || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(m.Name) {
			t.Errorf("%q is no name, or one that another message has", m.Name)
		}
		names[m.Name] = true
		whole := bytes.Count(m.Content, []byte("\r\n"))
		if whole != bytes.Count(m.Content, []byte("\r")) || whole != bytes.Count(m.Content, []byte("\n")) {
			t.Errorf("%s has a bare CR or LF", m.Name)
		}
		if ended := len(m.Content) == 0 || bytes.HasSuffix(m.Content, []byte("\r\n")); ended == m.Open {
			t.Errorf("%s: Open is %v", m.Name, m.Open)
		}
		if eight := i < len(again) && bytes.ContainsFunc(m.Content, func(r rune) bool { return r > 127 }); eight != m.EightBit {
			t.Errorf("%s: EightBit is %v", m.Name, m.EightBit)
		}
		if i < len(again) && !strings.HasPrefix(m.Name, "dkim") && !bytes.Equal(m.Content, again[i].Content) {
			t.Errorf("%s is another one each time", m.Name)
		}
	}
	if n := len(Large().Content); n < LargeSize || n > LargeSize+2<<20 {
		t.Errorf("the large one has %d bytes", n)
	}
}

func TestVerifyDKIM(t *testing.T) {
	for _, m := range All() {
		err := VerifyDKIM(m.Content)
		if signed := strings.HasPrefix(m.Name, "dkim"); signed != (err == nil) {
			t.Errorf("%s: %v", m.Name, err)
		}
		if err == nil && VerifyDKIM(bytes.Replace(m.Content, []byte("a dot"), []byte("a dog"), 1)) == nil {
			t.Errorf("%s: a changed body verifies", m.Name)
		}
	}
}
