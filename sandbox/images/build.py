"""Makes an image from an `image.toml`, on this machine, without a registry, the same bytes each time.

An image is a folder with an `image.toml`: `sandbox/images/NAME/`, or any folder given by path (an eMAD may bring its
own). The image is called like the folder. All fields are optional, an unknown one is an error:

    from     = "base"                    the image it stands on; without it, Debian packages alone
    debian   = ["git", "libpcre2-8-0"]   Debian packages (trixie), exactly these: nothing is added for them. They are
                                         unpacked, never configured: no maintainer script runs. Their versions are in
                                         `debian.lock` beside this file
    packages = ["protos"]                folders of this repository that go in as importable packages, without tests;
                                         "periphery/mcnamara" is importable as `periphery.mcnamara`. "./echo" is a
                                         folder beside image.toml, importable as `echo`
    remove   = ["usr/share/doc/**"]      what not to keep of the Debian packages and wheels (glob, ** crosses folders)
    strip    = ["**/*.so*"]              ELF files to strip of debug symbols; the default is shown; [] strips none
    check    = [["git", "--version"]]    commands that must end with 0 in the finished image, or it is refused
    [files]  "etc/gitconfig" = "gitconfig"     place in the image = file beside image.toml
    [env]    GIT_CONFIG_NOSYSTEM = "1"   added to the environment of everything that runs in it

Python packages come from `requirements.txt` beside it: a lock with hashes and without addresses, for **Python 3.13**
(what the image runs, not what the host runs), wheels only. Write what you want into `requirements.in` and let
`python -m sandbox.images lock NAME` make `requirements.txt` and `debian.lock`. Wheels go to `SITE` with their
bytecode; console scripts go to /usr/local/bin with `#!/usr/bin/python3`.

The program in an image runs as uid 10001, read-only, with /workspace (HOME, TMPDIR, and /tmp is a link to it) as the
only place to write, and / as its working directory. There is no shell in `base`.
"""
