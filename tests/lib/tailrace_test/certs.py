"""A certificate authority and what it signs, made by openssl in a folder."""

import datetime
import pathlib
import subprocess


class Certs:
    """Each is (certificate, key): server, client, expired, wrong_host, stranger (server, of a CA nobody knows),
    self_signed. ca is the certificate of the authority."""

    def __init__(self, tmpdir):
        self.dir = pathlib.Path(tmpdir) / "certs"
        self.dir.mkdir(parents=True)
        self.ca = self._authority("ca")
        self._authority("other-ca")
        local = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        self.server = self._signed("server", local + "\nextendedKeyUsage=serverAuth")
        self.client = self._signed("client", "extendedKeyUsage=clientAuth")
        self.expired = self._signed("expired", local, dates=("20200101000000Z", "20200201000000Z"))
        self.wrong_host = self._signed("wrong-host", "subjectAltName=DNS:elsewhere.invalid")
        self.self_signed = self._self_signed("self-signed", local)
        self.stranger = self._signed("stranger", local, authority="other-ca")

    def _openssl(self, *args):
        run = subprocess.run(["openssl", *args], cwd=self.dir, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"openssl {' '.join(args)}:\n{run.stderr}"

    def _key(self, name):
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def valid_for(self, name, days):
        """A server's or client's certificate that is good for so many days: (certificate, key)."""
        def stamp(**after):
            return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**after)).strftime("%Y%m%d%H%M%SZ")

        return self._signed(name, "subjectAltName=IP:127.0.0.1", dates=(stamp(days=-1), stamp(days=days, minutes=1)))

    def _authority(self, name):
        self._key(name)
        self._openssl(
            "req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
            "-subj", f"/CN=tailrace test {name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )
        return self.dir / f"{name}.pem"

    def _self_signed(self, name, extension):
        self._key(name)
        self._openssl("req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
                      "-subj", f"/CN={name}", "-addext", extension)
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"

    def _signed(self, name, extensions, authority="ca", dates=None):
        """dates: (from, to) as YYYYMMDDHHMMSSZ; without, 30 days from now."""
        self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.dir / f"{name}.db").touch()
        (self.dir / f"{name}.cnf").write_text(
            "[ca]\ndefault_ca=x\n[x]\npolicy=any\ndefault_md=sha256\nx509_extensions=ext\nunique_subject=no\n"
            f"rand_serial=yes\ndatabase={name}.db\nnew_certs_dir=.\n[any]\ncommonName=supplied\n"
            f"[ext]\nbasicConstraints=CA:false\nauthorityKeyIdentifier=keyid\n{extensions}\n"
        )
        when = ["-startdate", dates[0], "-enddate", dates[1]] if dates else ["-days", "30"]
        self._openssl(
            "ca", "-batch", "-notext", "-config", f"{name}.cnf", "-cert", f"{authority}.pem", "-keyfile",
            f"{authority}.key", "-in", f"{name}.csr", "-out", f"{name}.pem", *when,
        )
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"
