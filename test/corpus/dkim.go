package corpus

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"

	"github.com/emersion/go-msgauth/dkim"
)

const (
	dkimDomain   = "out.example"
	dkimSelector = "corpus"
)

// key is made of a fixed seed: it protects nothing.
func key() ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	fill(source("dkim"), seed[:])
	return ed25519.NewKeyFromSeed(seed[:])
}

// signed is a message with a DKIM signature over the whole header and body. Simple
// canonicalization forgives nothing (RFC 6376 section 3.4).
func signed(relaxed bool) []byte {
	message := text("Signed by DKIM", "A line with a blank at its end \r\n.a dot\r\n\r\n\t two  blanks\r\n\r\n\r\nand the end\r\n")
	o := &dkim.SignOptions{
		Domain: dkimDomain, Selector: dkimSelector, Signer: key(),
		HeaderCanonicalization: dkim.CanonicalizationSimple, BodyCanonicalization: dkim.CanonicalizationSimple,
	}
	if relaxed {
		o.HeaderCanonicalization, o.BodyCanonicalization = dkim.CanonicalizationRelaxed, dkim.CanonicalizationRelaxed
	}
	var b bytes.Buffer
	if err := dkim.Sign(&b, bytes.NewReader(message), o); err != nil {
		panic(fmt.Sprintf("corpus: sign a message: %v", err))
	}
	return b.Bytes()
}

// VerifyDKIM returns nil if the message has exactly one DKIM signature, of this package,
// and it is right.
func VerifyDKIM(message []byte) error {
	found, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if name != dkimSelector+"._domainkey."+dkimDomain {
			return nil, fmt.Errorf("no key at %q", name)
		}
		public := key().Public().(ed25519.PublicKey)
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}, nil
	}})
	if err != nil {
		return fmt.Errorf("verify DKIM: %w", err)
	}
	if len(found) != 1 {
		return fmt.Errorf("verify DKIM: %d signatures, want one", len(found))
	}
	if found[0].Err != nil {
		return fmt.Errorf("verify DKIM: %w", found[0].Err)
	}
	return nil
}
