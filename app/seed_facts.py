"""A believable prefecture: 甘孜藏族自治州, its 18 counties, some departments, leaders by office.

Place names and division codes are public facts; distances are road kilometres to Kangding, rounded,
from general knowledge (good enough for a demo, to be measured before anyone quotes them). Offices
are named, never the people who hold them; petitioners in the demo are invented.
"""

from dataclasses import dataclass

from core.schemas import OrgLevel, Role


@dataclass(frozen=True, slots=True)
class Unit:
    code: str
    level: OrgLevel
    parent: str | None
    zh: str
    bo: str | None
    en: str
    km: int | None = None


PREFECTURE = "513300"
_COUNTY, _DEPARTMENT = OrgLevel.COUNTY, OrgLevel.DEPARTMENT

UNITS: tuple[Unit, ...] = (
    Unit("510000", OrgLevel.PROVINCE, None, "四川省", "སི་ཁྲོན་ཞིང་ཆེན།", "Sichuan"),
    Unit(
        PREFECTURE, OrgLevel.PREFECTURE, "510000", "甘孜藏族自治州",
        "དཀར་མཛེས་བོད་རིགས་རང་སྐྱོང་ཁུལ།", "Garzê Tibetan Autonomous Prefecture",
    ),
    Unit("513301", _COUNTY, PREFECTURE, "康定市", "དར་རྩེ་མདོ་གྲོང་ཁྱེར།", "Kangding", 0),
    Unit("513322", _COUNTY, PREFECTURE, "泸定县", "ལྕགས་ཟམ་རྫོང་།", "Luding", 50),
    Unit("513323", _COUNTY, PREFECTURE, "丹巴县", "རོང་བྲག་རྫོང་།", "Danba", 140),
    Unit("513324", _COUNTY, PREFECTURE, "九龙县", "བརྒྱད་ཟུར་རྫོང་།", "Jiulong", 220),
    Unit("513325", _COUNTY, PREFECTURE, "雅江县", "ཉག་ཆུ་རྫོང་།", "Yajiang", 140),
    Unit("513326", _COUNTY, PREFECTURE, "道孚县", "རྟའུ་རྫོང་།", "Daofu", 220),
    Unit("513327", _COUNTY, PREFECTURE, "炉霍县", "བྲག་འགོ་རྫོང་།", "Luhuo", 290),
    Unit("513328", _COUNTY, PREFECTURE, "甘孜县", "དཀར་མཛེས་རྫོང་།", "Garzê County", 380),
    Unit("513329", _COUNTY, PREFECTURE, "新龙县", "ཉག་རོང་རྫོང་།", "Xinlong", 430),
    Unit("513330", _COUNTY, PREFECTURE, "德格县", "སྡེ་དགེ་རྫོང་།", "Dêgê", 590),
    Unit("513331", _COUNTY, PREFECTURE, "白玉县", "དཔལ་ཡུལ་རྫོང་།", "Baiyü", 620),
    Unit("513332", _COUNTY, PREFECTURE, "石渠县", "སེར་ཤུལ་རྫོང་།", "Sêrxü", 700),
    Unit("513333", _COUNTY, PREFECTURE, "色达县", "གསེར་རྟ་རྫོང་།", "Sêrtar", 450),
    Unit("513334", _COUNTY, PREFECTURE, "理塘县", "ལི་ཐང་རྫོང་།", "Litang", 280),
    Unit("513335", _COUNTY, PREFECTURE, "巴塘县", "འབའ་ཐང་རྫོང་།", "Batang", 450),
    Unit("513336", _COUNTY, PREFECTURE, "乡城县", "ཕྱག་འཕྲེང་རྫོང་།", "Xiangcheng", 500),
    Unit("513337", _COUNTY, PREFECTURE, "稻城县", "འདབ་པ་རྫོང་།", "Daocheng", 430),
    Unit("513338", _COUNTY, PREFECTURE, "得荣县", "སྡེ་རོང་རྫོང་།", "Dêrong", 640),
    Unit("513300-XF", _DEPARTMENT, PREFECTURE, "州信访局", None, "Prefecture Petitions Office"),
    Unit("513300-LC", _DEPARTMENT, PREFECTURE, "州林业和草原局", None, "Forestry and Grassland"),
    Unit("513300-ZR", _DEPARTMENT, PREFECTURE, "州自然资源和规划局", None, "Natural Resources"),
    Unit("513300-NN", _DEPARTMENT, PREFECTURE, "州农牧农村局", None, "Agriculture and Herding"),
    Unit("513300-RS", _DEPARTMENT, PREFECTURE, "州人力资源和社会保障局", None, "Labour and Social"),
    Unit("513300-ZJ", _DEPARTMENT, PREFECTURE, "州住房和城乡建设局", None, "Housing and Building"),
    Unit("513300-JT", _DEPARTMENT, PREFECTURE, "州交通运输局", None, "Transport"),
    Unit("513300-JY", _DEPARTMENT, PREFECTURE, "州教育和体育局", None, "Education and Sports"),
    Unit("513300-WJ", _DEPARTMENT, PREFECTURE, "州卫生健康委员会", None, "Health Commission"),
    Unit("513300-MZ", _DEPARTMENT, PREFECTURE, "州民政局", None, "Civil Affairs"),
    Unit("513300-SL", _DEPARTMENT, PREFECTURE, "州水利局", None, "Water Resources"),
    Unit("513300-HJ", _DEPARTMENT, PREFECTURE, "州生态环境局", None, "Ecology and Environment"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Office:
    key: str
    zh: str
    en: str


OFFICES: tuple[Office, ...] = (
    Office("secretary", "州委书记", "Prefecture Party Secretary"),
    Office("governor", "州委副书记、州长", "Governor"),
    Office("deputy-secretary", "州委副书记", "Deputy Party Secretary"),
    Office("vice-governor-1", "常务副州长", "Executive Vice Governor"),
    Office("vice-governor-2", "副州长（农牧、林草）", "Vice Governor, Herding and Grassland"),
    Office("vice-governor-3", "副州长（自然资源、住建）", "Vice Governor, Land and Housing"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """A demo account: what it is for, and where its role is bound."""

    username: str
    shown_as: str
    role: Role
    unit: str
    office: str | None = None


PEOPLE: tuple[Person, ...] = (
    Person("xinfang", "州信访局 值班", Role.SCHEDULER, PREFECTURE),
    Person("lingdao", "州委副书记", Role.OFFICIAL, PREFECTURE, "deputy-secretary"),
    Person("lingdao2", "副州长（农牧、林草）", Role.OFFICIAL, PREFECTURE, "vice-governor-2"),
    Person("ganzi", "甘孜县接待室", Role.DESK, "513328"),
    Person("litang", "理塘县接待室", Role.DESK, "513334"),
    Person("lincao", "州林草局 承办", Role.DEPARTMENT, "513300-LC"),
    Person("fuhe", "复核员", Role.REVIEWER, PREFECTURE),
    Person("dangan", "档案员", Role.ARCHIVIST, PREFECTURE),
    Person("guanli", "系统管理", Role.ADMIN, PREFECTURE),
)

KIOSKS: tuple[tuple[str, str], ...] = (("甘孜县一号机", "513328"), ("理塘县一号机", "513334"))

TOPICS = ("草场补偿", "征地拆迁", "务工工资", "住房", "道路", "就医就学")


@dataclass(frozen=True, slots=True)
class Visit:
    """An invented matter for the demo."""

    desk: str
    county: str
    village: str
    name: str
    matter: str
    language: str
    demands: tuple[tuple[str, str, str | None, int | None], ...] = ()
    """(what was asked, what was answered, owning department, days until due)"""


PAST_VISITS: tuple[Visit, ...] = (
    Visit(
        "ganzi", "513328", "城北二村", "泽仁（演示）", "草场征用补偿款未到户", "bo",
        (
            ("2016年征用草场320亩，补偿款至今没有到户。",
             "由州林草局核对面积，到期前书面答复并付款。", "513300-LC", 24),
            ("要求看征地公告和测量记录。",
             "今天下午在县接待室提供复印件。", None, None),
        ),
    ),
    Visit(
        "litang", "513334", "高城镇", "李建国（演示）", "工地工资拖欠", "zh-CN",
        (
            ("在工地干了四个月，还欠两个月工资。",
             "由州人社局约谈施工单位，限期支付。", "513300-RS", 10),
        ),
    ),
)  # fmt: skip

COMING_VISITS: tuple[Visit, ...] = (
    Visit("ganzi", "513328", "色西底乡", "卓玛（演示）", "通村道路塌方没有修", "bo"),
    Visit("ganzi", "513328", "城北二村", "扎西（演示）", "草场承包证面积写错", "bo"),
    Visit("litang", "513334", "甲洼镇", "王秀英（演示）", "孩子转学手续", "zh-CN"),
)
