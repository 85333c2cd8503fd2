package watermark

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

// What can be read is the same after it was written and read again; nothing else is fatal.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(format + "\n{\"agency\":\"health\",\"sides\":[\"exchange\",\"ox\"]}\n{\"side\":1,\"mailbox\":\"00000000-0000-0000-0000-000000000001\"}\n"))
	f.Add([]byte(format + "\n{}\nnull\n"))
	f.Add([]byte(format + "\n{\"sides\":[\"a\"]}\n{\"side\":-1}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := decode(&b)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := encode(&again, s); err != nil {
			return // a time that JSON doesn't have
		}
		written := bytes.Clone(again.Bytes())
		back, err := decode(&again)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		var third bytes.Buffer
		if err := encode(&third, back); err != nil || plain(t, third.Bytes()) != plain(t, written) {
			t.Fatalf("read again it is another: %v", err)
		}
	})
}

func plain(t *testing.T, packed []byte) string {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
