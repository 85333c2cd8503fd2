package directory

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecapsulate(t *testing.T) {
	for in, want := range map[string]string{
		"IMCEAEX-_o=Org_ou=First+20Group_cn=Recipients_cn=u1@agency.example": "/o=Org/ou=First Group/cn=Recipients/cn=u1",
		"imceaex-_o=org_cn=a+2eb+5fc":                                        "/o=org/cn=a.b_c",
		"IMCEAEX-_O=ORG_CN=" + strings.Repeat("x", 200) + "@a.example":       "/O=ORG/CN=" + strings.Repeat("x", 200),
		"imceaex-_o=org_cn=gr+c3+bcn":                                        "/o=org/cn=grün",
		// No X.500 name, or a broken one.
		"imceaex-": "", "imceaex-_": "", "imceaex-o=org": "", "imceaex-_o=+2": "", "imceaex-_o=+zz": "", "imceaex-_o=+0a": "",
		"imceaex-_o=+ff": "", "IMCEASMTP-a+40b.example@a.example": "", "anna@a.example": "", "": "",
	} {
		if got, ok := Decapsulate(in); got != want && ok || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", in, got, ok, want)
		}
	}
}

func FuzzDecapsulate(f *testing.F) {
	f.Add("IMCEAEX-_o=Org_ou=First+20Group_cn=u1@agency.example")
	f.Add("imceaex-+")
	f.Fuzz(func(t *testing.T, in string) {
		name, ok := Decapsulate(in)
		if !ok {
			return
		}
		if !utf8.ValidString(name) || name[0] != '/' || strings.ContainsAny(name, "\r\n\x00") {
			t.Fatalf("%q gives %q", in, name)
		}
		var b strings.Builder // encoded again it is the same name
		b.WriteString("IMCEAEX-")
		for i := range len(name) {
			if name[i] == '/' {
				b.WriteByte('_')
			} else {
				fmt.Fprintf(&b, "+%02X", name[i])
			}
		}
		if again, ok := Decapsulate(b.String()); !ok || again != name {
			t.Fatalf("%q gives %q, and encoded again %q", in, name, again)
		}
	})
}
