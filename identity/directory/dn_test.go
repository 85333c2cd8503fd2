package directory

import "testing"

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		dn, base string
		want     bool
	}{
		{"cn=a,ou=health,dc=x", "ou=health,dc=x", true},
		{"CN=a, OU = Health ,DC=x", "ou=health,dc=X", true},
		{"ou=health,dc=x", "ou=health,dc=x", true},
		{"cn=a,ou=labour,dc=x", "ou=health,dc=x", false},
		{"cn=a,ou=public health,dc=x", "ou=health,dc=x", false},
		{`cn=a\,ou=health,dc=x`, "ou=health,dc=x", false},
		{`cn="a,ou=health",dc=x`, "ou=health,dc=x", false},
		{`cn=Berg\, Anna,ou=health,dc=x`, "ou=health,dc=x", true},
		{"dc=x", "ou=health,dc=x", false},
		{"cn=a,ou=health,dc=x", "", false},
		{"", "dc=x", false},
		{`cn=a\`, "dc=x", false},
	} {
		if got := Below(c.dn, c.base); got != c.want {
			t.Errorf("Below(%q, %q) = %v", c.dn, c.base, got)
		}
	}
	if !SameDN("CN=a,DC=x", "cn=a, dc=x") || SameDN("cn=a,dc=x", "dc=x") {
		t.Error("SameDN")
	}
}
