access = "user‮ ⁦# only admins⁩ ⁦"
