package directory

import (
	"errors"
	"strings"
	"testing"

	"mailcutover/routing"
)

const (
	adForm = "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2"
	raw    = "\xd0\x2a\x1f\x6b\x4e\x3c\x5a\x4f\x8b\x6c\x7d\x8e\x9f\xa0\xb1\xc2" // MS-DTYP section 2.3.4.2
)

func TestFormsOfAnID(t *testing.T) {
	want, err := routing.ParseMailboxID(adForm)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		adForm, strings.ToUpper(adForm), "{" + adForm + "}",
		`\d0\2a\1f\6b\4e\3c\5a\4f\8b\6c\7d\8e\9f\a0\b1\c2`, `\D0\2A\1F\6B\4E\3C\5A\4F\8B\6C\7D\8E\9F\A0\B1\C2`,
		"0Cofa048Wk+LbH2On6Cxwg==",
	} {
		if got, err := ParseID(s); err != nil || got != want {
			t.Errorf("ParseID(%q) = %s, %v; want %s", s, got, err, want)
		}
	}
	if got, err := ParseBytes([]byte(raw)); err != nil || got != want {
		t.Errorf("ParseBytes = %s, %v", got, err)
	}
	for _, s := range []string{"d02a1f6b-4e3c-5a4f-8b6c-7d8e9fa0b1c2", "D02A1F6B4E3C5A4F8B6C7D8E9FA0B1C2"} {
		if got, err := ParsePlain(s); err != nil || got != want {
			t.Errorf("ParsePlain(%q) = %s, %v; want %s", s, got, err, want)
		}
	}
}

// Digits alone are one mailbox in one order, and another one in the other.
func TestDigitsAloneAreRefusedWithBothReadings(t *testing.T) {
	for _, s := range []string{"6b1f2ad03c4e4f5a8b6c7d8e9fa0b1c2", "0x6b1f2ad03c4e4f5a8b6c7d8e9fa0b1c2"} {
		_, err := ParseID(s)
		if !errors.Is(err, ErrAmbiguous) || !errors.Is(err, routing.ErrBadID) {
			t.Fatalf("ParseID(%q): %v, want ErrAmbiguous", s, err)
		}
		for _, reading := range []string{adForm, "d02a1f6b-4e3c-5a4f-8b6c-7d8e9fa0b1c2"} {
			if !strings.Contains(err.Error(), reading) {
				t.Errorf("%v: the reading %s isn't shown", err, reading)
			}
		}
	}
	// Both orders are the same id.
	const same = "11111111222233334444555566667777"
	if id, err := ParseID(same); err != nil || id.String() != "11111111-2222-3333-4444-555566667777" {
		t.Errorf("ParseID(%s) = %s, %v", same, id, err)
	}
}

func TestWhatIsNoID(t *testing.T) {
	for _, s := range []string{
		"", "x", raw, "an-account-name.", adForm[1:], adForm + "0", "6b1f2ad0+3c4e-4f5a-8b6c-7d8e9fa0b1c2", "(" + adForm + ")",
		"00000000-0000-0000-0000-000000000000", strings.Repeat("0", 32),
		"6b1f2ad03c4e4f5a8b6c7d8e9fa0b1cg", `\d0\2a\1f\6b\4e\3c\5a\4f\8b\6c\7d\8e\9f\a0\b1\cg`,
		`d\02\a1\f6\b4\e3\c5\a4\f8\b6\c7\d8\e9\fa\0b\1c\2`, "0Cofa048Wk+LbH2On6Cxw===", "0Cofa048Wk-LbH2On6Cxwg==", " " + adForm,
	} {
		if id, err := ParseID(s); !errors.Is(err, routing.ErrBadID) {
			t.Errorf("ParseID(%q) = %s, %v; want ErrBadID", s, id, err)
		}
	}
	for _, s := range []string{"", adForm[1:], "{" + adForm + "}", "d02a1f6b-4e3c-5a4f-8b6c-7d8e9fa0b1c", strings.Repeat("0", 32)} {
		if id, err := ParsePlain(s); !errors.Is(err, routing.ErrBadID) {
			t.Errorf("ParsePlain(%q) = %s, %v; want ErrBadID", s, id, err)
		}
	}
}

func TestKinds(t *testing.T) {
	for k := KindUnknown; k <= KindApplication; k++ {
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("ParseKind(%q) = %v, %v", k, got, err)
		}
		if want := k == KindUser || k == KindShared || k == KindRoom; k.Mailbox() != want {
			t.Errorf("%v is a mailbox: %v", k, !want)
		}
	}
	if _, err := ParseKind("printer"); err == nil {
		t.Error("a kind that doesn't exist was taken")
	}
}
